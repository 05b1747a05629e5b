// Correcting in place, and how two answers differ. Enter saves, Esc leaves.

import { button, details, div, h, p, show, span } from "./dom.js";
import { explain } from "./parts.js";
import { t } from "./words.js";

const WORDS = /\p{Script=Han}|[\p{L}\p{N}_]+|\s+|[^\p{L}\p{N}_\s]/gu;
const LARGEST = 1_000_000; // cells of the table; beyond it the middle is shown as replaced
const TAGS = { same: "span", removed: "del", added: "ins" };

// Return [kind, text] pairs that turn `before` into `after`; kind is "same", "removed" or "added".
function wordDiff(before, after) {
	const a = before.match(WORDS) ?? [];
	const b = after.match(WORDS) ?? [];
	let start = 0;
	while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
	let end = 0;
	while (end < Math.min(a.length, b.length) - start && a.at(-1 - end) === b.at(-1 - end)) end += 1;
	const same = (words) => words.map((word) => ["same", word]);
	const middle = changes(a.slice(start, a.length - end), b.slice(start, b.length - end));
	return joined([...same(a.slice(0, start)), ...middle, ...same(a.slice(a.length - end))]);
}

// The longest common subsequence of two short lists of words, walked forwards.
function changes(a, b) {
	const gone = a.map((word) => ["removed", word]);
	const come = b.map((word) => ["added", word]);
	if (a.length * b.length > LARGEST) return [...gone, ...come];
	const width = b.length + 1;
	const best = new Uint32Array((a.length + 1) * width);
	for (let i = a.length - 1; i >= 0; i -= 1) {
		for (let j = b.length - 1; j >= 0; j -= 1) {
			const at = i * width + j;
			best[at] = a[i] === b[j] ? best[at + width + 1] + 1 : Math.max(best[at + width], best[at + 1]);
		}
	}
	const found = [];
	let i = 0;
	let j = 0;
	while (i < a.length && j < b.length) {
		if (a[i] === b[j]) { found.push(["same", a[i]]); i += 1; j += 1; }
		else if (best[(i + 1) * width + j] >= best[i * width + j + 1]) found.push(gone[i++]);
		else found.push(come[j++]);
	}
	return [...found, ...gone.slice(i), ...come.slice(j)];
}

// Neighbours of one kind become one stretch; what went stands before what came.
function joined(parts) {
	const out = [];
	const run = { same: "", removed: "", added: "" };
	const flush = () => {
		for (const kind in run) {
			if (run[kind]) out.push([kind, run[kind]]);
			run[kind] = "";
		}
	};
	for (const [kind, text] of parts) {
		if (kind === "same" ? run.removed || run.added : run.same) flush();
		run[kind] += text;
	}
	flush();
	return out;
}

// The difference as elements: struck out and underlined as well as coloured.
export const diffView = (before, after) =>
	p("diff", wordDiff(before, after).map(([kind, text]) => h(TAGS[kind], {}, text)));

// Whether an input method is still choosing characters, so that Enter is its own.
export const composing = (event) => event.isComposing || event.keyCode === 229;

// Let a text field grow with its text, to `most` pixels.
export function grow(field, most) {
	field.style.height = "auto";
	field.style.height = `${Math.min(field.scrollHeight + 2, most)}px`;
}

/**
 * Open an editor in `place`, a child of `node`, for `one` (answer, corrected, reason, share). `save(words, close)` may
 * raise: the error is shown and the text stays. `left()` follows an Esc. While it is open, `node` is busy.
 */
export function openEditor(node, place, one, save, left) {
	if (node.dataset.busy) return;
	const before = [...place.childNodes];
	const old = one.corrected ?? one.answer;
	node.dataset.busy = "1";
	const field = h("textarea", { class: "field", rows: 1, id: "editor", "aria-describedby": "editor-keys" });
	field.value = old;
	const reason = h("input", { class: "field", id: "editor-reason", maxlength: 500, autocomplete: "off" });
	reason.value = one.reason ?? "";
	const never = h("input", { type: "checkbox", id: "editor-never" });
	never.checked = one.share === false;
	const difference = div("difference");
	const fault = h("p", { class: "fault", role: "alert" });
	const keep = button("save", () => void submit(), { kind: "main", sign: "check" });

	const leave = () => { close(); place.replaceChildren(...before); left(); };
	const close = () => { delete node.dataset.busy; };
	const view = () => {
		grow(field, 420);
		const same = field.value.trim() === one.answer.trim();
		show(difference, field.value, () => (same ? p("soft", t("edit_unchanged")) : diffView(one.answer, field.value)));
		keep.disabled = same || !field.value.trim();
	};
	async function submit() {
		if (keep.disabled) { fault.textContent = t(field.value.trim() ? "error.unchanged" : "error.empty"); return; }
		keep.disabled = true;
		try {
			await save({ corrected: field.value, reason: reason.value.trim(), share: !never.checked }, close);
		} catch (error) {
			fault.textContent = explain(error);
			view();
			field.focus();
		}
	}
	const form = h("form", { class: "editor", on: { input: () => { fault.textContent = ""; view(); }, keydown: (event) => {
		if (composing(event)) return;
		if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); leave(); }
		if (event.key === "Enter" && !event.shiftKey && [field, reason].includes(event.target)) { event.preventDefault(); void submit(); }
	} } },
	h("label", { class: "label", for: "editor" }, t("edit_label")), field, p("label", t("difference")), difference, fault,
	details(t("edit_more"), "", h("label", { class: "label", for: "editor-reason" }, t("reason")), reason,
		h("label", { class: "choice", for: "editor-never" }, never, span("", t("never_share_long")))),
	div("row", keep, button("cancel", leave), h("span", { class: "keys", id: "editor-keys" }, t("edit_keys"))));
	place.replaceChildren(form);
	view();
	field.focus();
	field.setSelectionRange(old.length, old.length);
	form.scrollIntoView({ block: "nearest" });
}
