// Privacy: what the owner allowed, what it cost, and every byte that ever left.

import { get, put, refreshStatus, source, state } from "./daemon.js";
import { button, div, h, h2, icon, li, p, section, show, span, ul } from "./dom.js";
import { empty, failure, guarded, loading, notice, table } from "./parts.js";
import { has, language, moment, number, said, size, t, tiny } from "./words.js";

const from = source("/api/privacy", draw);
let preview = null;
const [consents, budget, left, next, receipts] = [1, 2, 3, 4, 5].map(() => section("card"));

export const panel = { id: "privacy", mount, refresh: from.load, keys: () => undefined, words: draw };

function mount(root) {
	root.append(consents, budget, left, next, receipts);
}

function draw() {
	const lang = language();
	for (const part of [budget, left, next]) part.hidden = !from.data;
	receipts.hidden = !from.data?.receipts?.length;
	show(consents, [lang, from.fault?.code, from.data?.consents, state.status?.upstream], () =>
		(from.data ? [h2("", t("consents")), ...["log", "learn", "share", state.status?.upstream && "upstream"].filter(Boolean).map(consent)] : from.fault ? failure(from.fault, from.load) : loading()));
	if (!from.data) return;
	show(budget, [lang, from.data.budget], spent);
	show(left, [lang, from.data.egress], departed);
	show(next, [lang, preview], preparing);
	show(receipts, [lang, from.data.receipts], proof);
}

function consent(purpose) {
	const name = `consent.${purpose}`;
	const box = h("input", { type: "checkbox", role: "switch", id: name, "aria-describedby": `${name}.text`, act: name, on: { change: () => void decide(purpose, box) } });
	box.checked = from.data.consents[purpose];
	return div("consent", box, div("", h("label", { for: name }, t(name)), h("p", { class: "soft", id: `${name}.text` }, t(`${name}.text`))));
}

async function decide(purpose, box) {
	const granted = box.checked;
	const done = await guarded(() => put("/api/privacy/consents", { purpose, granted }));
	if (done) notice(t(granted ? "consent_given" : "consent_taken", { what: t(`consent.${purpose}`) }));
	else box.checked = !granted;
	await from.load();
	void guarded(refreshStatus);
}

// The words for a value the daemon names, or the value.
const known = (key, value) => (has(`${key}.${value}`) ? t(`${key}.${value}`) : said(value));
const facts = (rows) => h("dl", { class: "facts" }, rows.map(([name, value]) => div("", h("dt", {}, name), h("dd", {}, value))));

function spent() {
	const { epsilon_spent: used, epsilon_cap: cap, delta, ...rest } = from.data.budget;
	const words = t("budget_line", { spent: number(used, 2), cap: number(cap, 2) });
	return [
		h2("", t("budget")), p("big", words), h("meter", { min: 0, max: cap, high: 0.75 * cap, value: used, "aria-label": words }),
		facts([[t("delta"), tiny(delta)], ...["unit", "adjacency", "trust", "period"].map((key) => [t(key), known(key, rest[key])])]),
		p("soft", t("budget_text")),
	];
}

function departed() {
	const all = from.data.egress;
	if (!all.length) return [h2("", t("left")), empty("lock", "nothing_left")];
	const name = (digest, most) => h("span", { class: "mono", title: digest }, digest.replace("sha256:", "").slice(0, most));
	const rows = all.map((one) => [moment(one.time), known("purpose", one.purpose), name(one.destination, 16), size(one.bytes), one.epsilon ? number(one.epsilon, 3) : "–", name(one.digest, 12)]);
	const told = all.filter((one) => one.purpose !== "transport"); // streams carried these and are not counted again
	const total = size(told.reduce((sum, one) => sum + one.bytes, 0));
	return [h2("", t("left")), p("", t("left_text", { n: told.length, size: total })), table(["when", "purpose", "destination", "bytes", "epsilon", "digest"], rows, [3, 4])];
}

function preparing() {
	return [h2("", t("preview")), p("soft", t("preview_text")), div("row", button("preview_show", look)),
		preview?.error && failure(preview.error), preview?.data && account(preview.data)];
}

async function look() {
	preview = await get("/api/privacy/preview").then((made) => ({ data: made }), (error) => ({ error }));
	draw();
}

// The account as the daemon gives it: every key a line, so that nothing is left out.
function account(all) {
	const value = (key, one) => (key === "delta" ? tiny(one) : typeof one === "number" ? number(one, Number.isInteger(one) ? 0 : 3) : typeof one === "string" ? one : JSON.stringify(one));
	return facts(Object.entries(all).map(([key, one]) => [t(key), value(key, one)]));
}

function proof() {
	const line = (one) => li("", icon("check"), " ", span("mono", one.payload.slice(0, 19)), " ", span("soft", `${moment(one.time)} · ε ${number(one.epsilon, 3)} · δ ${tiny(one.delta)} · ${known("unit", one.unit)}`));
	return [h2("", t("receipts")), p("soft", t("receipts_text")), ul("", from.data.receipts.map(line))];
}
