// Learning: is it getting better, what did each adapter fix and break, and the way back.

import { chart } from "./chart.js";
import { learnNow } from "./chat.js";
import { post, source, state, watch } from "./daemon.js";
import { button, control, details, div, h, h2, icon, li, p, section, show, step, sync, ul } from "./dom.js";
import { diffView } from "./editor.js";
import { ask, chip, failure, guarded, loading, notice, table, time } from "./parts.js";
import { ago, has, language, moment, number, said, sentences, signed, t } from "./words.js";

const SHOWN = 5; // more examples than this are folded away
const from = source("/api/learning", draw);
const now = section("card");
const picture = section("card");
const title = h2();
const list = h("ol", { class: "runs" });

export const panel = { id: "learning", mount, refresh: from.load, keys, words: draw };

function mount(root) {
	root.append(now, picture, title, list);
	watch(draw);
}

function draw() {
	const { running } = state;
	const { learning = {}, learner = {} } = state.status ?? {};
	show(now, [language(), from.fault?.code, from.data?.active, from.data?.runs?.length, running, learning, learner], () =>
		(from.data ? head(running, learning, learner) : from.fault ? failure(from.fault, from.load) : loading()));
	const measured = curve();
	picture.hidden = !measured.length;
	show(picture, [language(), measured, narrow()], () => measured.length && graph(measured));
	title.textContent = from.data?.runs?.length ? t("runs") : "";
	sync(list, from.data?.runs ?? [], (run) => run.id, run);
}

const narrow = () => matchMedia("(max-width: 500px)").matches;

// Oldest first: what each run measured on corrections it had not seen.
function curve() {
	const decisions = new Map((from.data?.runs ?? []).map((run) => [run.time, run.decision]));
	return (from.data?.curve ?? []).filter((one) => one.error_before !== null)
		.map((one) => ({ time: one.time, before: one.error_before, after: one.error_after, decision: decisions.get(one.time) }));
}

function head(running, learning, learner) {
	const digest = from.data.active?.personal;
	const adopted = from.data.runs.find((one) => one.adapter === digest)?.time;
	const busy = Boolean(running);
	return [
		h2("", t(busy ? "learning_now" : "learner_title")),
		busy ? progress(running) : (from.data.runs.length || learning.waiting) ? p("", sentence(learner, learning)) : null,
		p("soft", icon("check"), " ", digest ? t("serving_personal", { when: ago(adopted ?? 0) }) : t("serving_base")),
		div("row", button("learn_now", learnNow, { sign: "learning", kind: "main", disabled: busy }),
			button("roll_back", rollBack, { sign: "back", disabled: busy || !digest })),
		!from.data.runs.length && p("soft", t("no_runs")),
	];
}

function progress({ phase, step: done, steps }) {
	const words = t(has(`phase.${phase}`) ? `phase.${phase}` : "phase.start");
	return div("", p("", words), h("progress", { max: 100, value: steps > 0 && (100 * done) / steps, "aria-label": words }));
}

// What the learner is waiting for: its own reason when it gives one.
function sentence(learner, { waiting = 0, every = 0 }) {
	if (learner.code && learner.code !== "backlog") return t("waits", { why: said(learner.reason) });
	if (!waiting) return t("nothing_waits");
	return sentences(t("waiting", { n: waiting }), waiting < every ? t("until_learning", { n: every - waiting }) : t("learns_soon"));
}

async function rollBack() {
	if (!(await ask(t("roll_back_title"), t("roll_back_text"), "roll_back"))) return;
	const done = await guarded(() => post("/api/adapters/rollback", { slot: "personal" }));
	await from.load();
	if (done) notice(t("rolled_back"));
}

function graph(measured) {
	const rows = measured.map((run) => [moment(run.time), t(`decision.${run.decision}`), number(run.before, 1), number(run.after, 1)]);
	return [
		h2("", t("curve_title")), p("soft", t("curve_text")), chart(measured, narrow() ? 360 : 680),
		ul("legend", ["adopt", "wait", "reject"].map((kind) => li(kind, t(`decision.${kind}`)))),
		details(t("as_table"), "", table(["when", "decided", "before", "after"], rows, [2, 3])),
	];
}

function run(one) {
	const gain = () => t("gain", { gain: signed(one.gain), lower: signed(one.lower), upper: signed(one.upper), n: one.evidence });
	const slice = (part) => li("", t("slice", { name: said(part.name), n: part.count, before: number(part.before, 1), after: number(part.after, 1) }));
	return h("li", { class: "card run", tabindex: "-1" },
		div("row split", chip(one.decision, t(`decision.${one.decision}`)), p("meta", time(one.time))),
		p("strong", said(one.reason)), one.evidence > 0 && p("soft", gain()), examples("fixed", one.fixed), examples("broken", one.broken),
		one.slices?.length && details(t("slices"), "", ul("", one.slices.map(slice))),
		one.adapter && p("meta", `${t("adapter")} ${one.adapter.slice(0, 19)}`));
}

// What is now answered right that was not (fixed), or no longer is (broken).
function examples(kind, all) {
	if (!all?.length) return null;
	const items = all.map((one) => li("", p("soft request", one.request), diffView(one.before, one.after ?? "")));
	const node = details(t(kind, { n: all.length }), kind, ul("examples", items));
	node.open = kind === "broken" || items.length <= SHOWN;
	return node;
}

function keys(key) {
	const press = (act) => () => control(now, act)?.click();
	const move = (by) => () => step(list, by, list.firstChild);
	return { l: press("learn_now"), z: press("roll_back"), j: move(1), k: move(-1) }[key];
}
