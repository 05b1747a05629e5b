// The parts that panels share: notices, errors with what to do, questions, small signs, tables.

import { button, div, h, icon, p, span } from "./dom.js";
import { ago, has, moment, said, sentences, t } from "./words.js";

const LASTS = 9000; // milliseconds
let undo = null;

// Say `words` for a while. `back` undoes what was done; `link` is [key of its words, what it does].
export function notice(words, { back, kind = "", link } = {}) {
	const region = document.getElementById("toasts");
	let timer = 0;
	const close = () => { node.remove(); if (undo === revert) undo = null; };
	const start = () => { clearTimeout(timer); timer = setTimeout(close, LASTS); };
	const revert = back && (() => { close(); void guarded(back); });
	const node = div(`toast ${kind}`, span("", words), link && button(link[0], () => { close(); link[1](); }, { kind: "link" }),
		revert && button("undo", revert, { kind: "link" }), button("close", close, { sign: "cross", bare: true }));
	for (const event of ["mouseenter", "focusin"]) node.addEventListener(event, () => clearTimeout(timer));
	for (const event of ["mouseleave", "focusout"]) node.addEventListener(event, start);
	if (revert) undo = revert;
	while (region.children.length > 2) region.firstChild.remove();
	region.append(node);
	start();
}

export const undoLast = () => (undo ? undo() : notice(t("nothing_to_undo")));

export function explain({ code = "unknown", message, hint }) {
	const key = `error.${code}`;
	return has(key) ? t(key) : sentences(said(message) || t("error.unknown"), said(hint));
}

// Run `todo`; an error becomes a notice and is returned as false.
export async function guarded(todo) {
	try {
		await todo();
		return true;
	} catch (error) {
		notice(explain(error), { kind: "bad" });
		return false;
	}
}

// A block that says what went wrong, and offers to try again.
export function failure(error, again) {
	return h("div", { class: "failure", role: "alert" }, p("strong", explain(error)), again && button("try_again", again, { sign: "again" }));
}

// A friendly place-holder where nothing is yet; `key` names its words.
export const empty = (sign, key, ...more) => div("empty", icon(sign), h("h2", {}, t(key)), p("", t(`${key}.text`)), ...more);

export const loading = () => p("soft", t("loading"));

// Ask before something that cannot be undone; resolves to whether to go on. Esc means no.
export function ask(title, text, yes) {
	return new Promise((resolve) => {
		const dialog = dialogue(title, p("", text));
		dialog.append(div("row end", button("cancel", () => dialog.close("no")), button(yes, () => dialog.close("yes"), { kind: "danger", act: "yes" })));
		dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"));
		dialog.showModal();
	});
}

// Make a modal dialog; it removes itself when closed and gives the focus back.
export function dialogue(title, ...children) {
	const before = document.activeElement;
	const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, h("h2", { id: "dialog-title" }, title), ...children);
	dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
	dialog.addEventListener("close", () => { dialog.remove(); if (before?.isConnected) before.focus(); });
	document.body.append(dialog);
	return dialog;
}

export const chip = (kind, words, sign) => span(`chip ${kind}`, sign && icon(sign), words);

// The state of a correction, and a lock when it is never shared.
export function states({ state, learned, share }) {
	const kind = learned && state !== "discarded" ? "learned" : state ?? "accepted";
	return [chip(kind, t(`state.${kind}`), kind === "learned" && "check"), share === false && chip("", t("never_shared"), "lock")];
}

// A moment as "5 minutes ago", with the exact time to hover over.
export const time = (seconds) =>
	seconds && h("time", { datetime: new Date(seconds * 1000).toISOString(), title: moment(seconds) }, ago(seconds));

// `heads`: keys of the headings; `rows`: texts; `numbers`: which columns hold numbers.
export function table(heads, rows, numbers) {
	const css = (place) => (numbers.includes(place) ? "num" : false);
	const line = (cells, tag, props) => h("tr", {}, cells.map((cell, place) => h(tag, { ...props, class: css(place) }, cell)));
	return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("as_table") }, h("table", {},
		h("thead", {}, line(heads.map((key) => t(key)), "th", { scope: "col" })), h("tbody", {}, rows.map((cells) => line(cells, "td")))));
}
