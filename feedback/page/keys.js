// Keys: who answers to them, and the list shown under "?".

import { button, div, h, section, span, typing } from "./dom.js";
import { dialogue } from "./parts.js";
import { keep, kept, t } from "./words.js";

const LISTS = { // list: keys: words
	"keys.everywhere": { "1 – 5": "keys.panels", "/": "keys.search", u: "undo", "?": "shortcuts" },
	"panel.chat": {
		Enter: "send", "Shift Enter": "keys.newline", "↑": "keys.up", Esc: "keys.escape", "j  k": "keys.move",
		e: "correct", r: "again", "g  b": "keys.rate", c: "copy", Delete: "delete",
	},
	"keys.editor": { Enter: "save", "Shift Enter": "keys.newline", Esc: "keys.leave" },
	"panel.corrections": { "j  k": "keys.move", x: "keys.select", a: "accept", d: "keys.discard", e: "edit", s: "never_share", Delete: "delete" },
	"panel.learning": { l: "learn_now", z: "roll_back" },
};

// Single letters can be switched off (WCAG 2.1.4).
const lettersOn = () => kept("letters") !== "off";

// Listen for keys; `find(key)` returns what to do, or nothing. Text fields and dialogs keep theirs.
export function listenForKeys(find) {
	document.addEventListener("keydown", (event) => {
		if (event.defaultPrevented || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
		if (typing(event.target) || document.querySelector("dialog[open]") || ["Enter", " "].includes(event.key)) return;
		if (event.key.length === 1 && event.key !== "?" && !lettersOn()) return;
		const todo = find(event.key);
		if (todo) { event.preventDefault(); todo(); }
	});
}

export function showKeys() {
	const box = h("input", { type: "checkbox", id: "letters", on: { change: () => keep("letters", box.checked ? "on" : "off") } });
	box.checked = lettersOn();
	const line = ([keys, name]) => div("", h("dt", {}, keys.split("  ").map((one) => h("kbd", {}, one))), h("dd", {}, t(name)));
	const lists = Object.entries(LISTS).map(([name, rows]) => section("", h("h3", {}, t(name)), h("dl", {}, Object.entries(rows).map(line))));
	const dialog = dialogue(t("shortcuts"), div("keylists", lists), h("label", { class: "choice", for: "letters" }, box, span("", t("letters"))));
	dialog.append(div("row end", button("close", () => dialog.close(), { kind: "main", autofocus: true })));
	dialog.classList.add("wide");
	dialog.showModal();
}
