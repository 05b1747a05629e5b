// One exchange on the page: the request, the answer, and what the owner can do about it.

import { patch, post, remove, state } from "./daemon.js";
import { button, control, div, h, p, span } from "./dom.js";
import { diffView, openEditor } from "./editor.js";
import { ask, chip, failure, guarded, notice, states, time } from "./parts.js";
import { t } from "./words.js";

export const corrected = (turn) => (turn.corrected ?? null) !== null && turn.state !== "discarded";

// Build the node of one exchange. `on` holds what the chat does: again(turn), changed(), focus(turn), gone(turn), learn().
export function exchange(turn, on) {
	const words = p("text", turn.answer);
	const body = turn.error ? [words, failure(turn.error, () => on.again(turn))]
		: turn.streaming ? [turn.answer ? words : thinking(), div("row", button("stop", turn.abort, { sign: "stop", kind: "quiet" }))]
		: finished(turn, on, words);
	const node = h("article", { class: "exchange", tabindex: "-1", "aria-label": t("exchange"), "aria-busy": turn.streaming ? "true" : false },
		p("request", turn.request), div("answer", ...body));
	node.words = words;
	return node;
}

const thinking = () => p("thinking", span("sr", t("thinking")), h("i", {}), h("i", {}), h("i", {}));

function finished(turn, on, words) {
	const fixed = corrected(turn);
	const kept = turn.completion_id && turn.logged !== false;
	const thumb = (value, name) => button(name, () => void rate(turn, value, on), { act: value, sign: value, bare: true, "aria-pressed": String(turn.rating === value) });
	return [
		fixed ? diffView(turn.answer, turn.corrected) : turn.answer ? words : p("soft", t("no_answer")),
		div("row", kept && button("edit", (event) => edit(turn, on, event.target.closest(".exchange")), { words: t(fixed ? "correct_again" : "correct"), sign: "edit", kind: "quiet" }),
			button("again", () => on.again(turn), { sign: "again", bare: true }),
			state.status?.upstream?.when.includes("request") && button("ask_server", () => void elsewhere(turn, on), { sign: "send", bare: true }),
			kept && !fixed && [thumb("up", "good"), thumb("down", "bad")],
			button("copy", () => void copy(turn), { sign: "copy", bare: true }),
			kept && button("delete", () => void erase(turn, on), { sign: "trash", bare: true })),
		p("meta", meta(turn, fixed)),
	];
}

// One quiet line: whether the correction has been learned, who answered, and when.
function meta(turn, fixed) {
	const who = t((turn.source || "device") !== "device" ? "answered_server" : turn.stack?.length ? "answered_learned" : "answered_base");
	return [fixed && states(turn), turn.fallback && chip("warn", t("fallback")),
		turn.logged === false && chip("warn", t("not_logged")),
		h("span", { title: (turn.stack ?? []).map((one) => one.slice(0, 19)).join("\n") || false }, who), time(turn.created)];
}

// Put the editor where the answer stands; what is saved can be undone.
export function edit(turn, on, node) {
	const save = async (words, close) => {
		const kept = await post("/v1/corrections", { completion_id: turn.completion_id, ...words });
		const old = { corrected: turn.corrected, correction_id: turn.correction_id, state: turn.state, share: turn.share, learned: turn.learned };
		Object.assign(turn, { corrected: kept.corrected, correction_id: kept.id, state: kept.state, share: kept.share, learned: false });
		close();
		on.changed();
		on.focus(turn);
		told(on, async () => {
			await patch(`/v1/corrections/${kept.id}`, { state: "discarded" });
			Object.assign(turn, old);
			on.changed();
		});
	};
	openEditor(node, node.querySelector(".answer"), turn, save, () => control(node, "edit")?.focus());
}

// Say that a correction was kept, and when it will be learned.
function told(on, back) {
	const { waiting = 0, every = 0 } = state.status?.learning ?? {};
	const rest = every - waiting - 1;
	notice(rest > 0 ? t("kept_more", { n: rest }) : t("kept_soon"), { back, link: ["learn_now", on.learn] });
}

async function rate(turn, rating, on) {
	const before = turn.rating;
	turn.rating = rating;
	const done = await guarded(() => post("/v1/ratings", { completion_id: turn.completion_id, rating }));
	if (!done) turn.rating = before;
	on.changed();
}

// Weak evidence for the learner; nothing depends on its arriving.
export const signal = (turn, kind) => turn.completion_id && post("/v1/signals", { completion_id: turn.completion_id, kind }).catch(() => {});

// Remove an answer with all that hangs on it, after asking.
async function erase(turn, on) {
	if (!(await ask(t("forget_title"), t("forget_text"), "delete"))) return;
	if (await guarded(() => remove(`/api/interactions/${turn.completion_id}`))) on.gone(turn);
}

// Ask the server the owner configured, after showing exactly what would go there.
async function elsewhere(turn, on) {
	await guarded(async () => {
		const { body, size } = await post("/api/upstream/preview", { model: state.status.model.name, messages: [{ role: "user", content: turn.request }] });
		if (await ask(t("ask_server_title", { to: state.status.upstream.destination, n: size }), body, "send")) on.again(turn, "@upstream");
	});
}

async function copy(turn) {
	if (!(await guarded(() => navigator.clipboard.writeText(turn.corrected ?? turn.answer)))) return;
	notice(t("copied"));
	if (corrected(turn)) signal(turn, "copy_after_edit");
}
