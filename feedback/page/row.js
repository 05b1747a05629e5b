// One correction in the list, and what can be done to it by button or key.

import { patch, post, remove } from "./daemon.js";
import { button, div, h, p, span } from "./dom.js";
import { diffView, openEditor } from "./editor.js";
import { ask, guarded, notice, states, time } from "./parts.js";
import { sentences, t } from "./words.js";

// Build the row of one correction; `on` holds what the list does: reload(), chosen (ids) and draw().
export function row(one, on) {
	const box = h("input", { type: "checkbox", "aria-label": t("select_one"), act: "select", on: { change: () => {
		on.chosen[box.checked ? "add" : "delete"](one.id);
		on.draw();
	} } });
	const set = (name, parts, options) => button(name, () => void change([one], parts, on), options);
	const gone = one.state === "discarded";
	return h("li", { class: "item", tabindex: "-1" }, box, div("body",
		p("request", one.request), diffView(one.answer, one.corrected),
		one.reason && p("small", span("soft", `${t("reason")}: `), one.reason),
		div("row split", p("meta", states(one), time(one.created)), div("row",
			one.state !== "accepted" && set("accept", { state: "accepted" }, { sign: "check", kind: "quiet" }),
			button("edit", (event) => edit(one, event.target.closest(".item"), on), { sign: "edit", bare: true }),
			set("discard", { state: gone ? "pending" : "discarded" }, { words: t(gone ? "restore" : "discard"), sign: gone ? "back" : "cross", bare: true }),
			set("never_share", { share: !one.share }, { sign: "lock", bare: true, "aria-pressed": String(!one.share) }),
			button("delete", () => void erase([one], on), { sign: "trash", bare: true })))));
}

// Change some corrections; the notice offers the way back.
export async function change(all, parts, on) {
	const [name, value] = Object.entries(parts)[0];
	const before = all.map((one) => one[name]);
	const done = await guarded(() => every(all, (one) => patch(`/v1/corrections/${one.id}`, parts)));
	await on.reload();
	if (!done) return;
	notice(t(`done.${value}`, { n: all.length }), { back: async () => {
		await every(all, (one, place) => patch(`/v1/corrections/${one.id}`, { [name]: before[place] }));
		await on.reload();
	} });
}

// Delete some corrections for good, after asking.
export async function erase(all, on) {
	const n = all.length;
	const learned = all.filter((one) => one.learned).length;
	const text = sentences(t("delete_text", { n }), learned && t("delete_learned", { n: learned }));
	if (!(await ask(t("delete_title", { n }), text, "delete"))) return;
	const done = await guarded(() => every(all, (one) => remove(`/v1/corrections/${one.id}`)));
	await on.reload();
	if (done) notice(t("deleted", { n }));
}

// One after the other: a daemon on a small machine is not to be flooded.
async function every(all, todo) {
	for (const [place, one] of all.entries()) await todo(one, place);
}

function edit(one, node, on) {
	const save = async (words, close) => {
		await post("/v1/corrections", { completion_id: one.completion_id, ...words });
		close();
		node.focus();
		await on.reload();
		notice(t("saved"));
	};
	openEditor(node, node.querySelector(".body"), one, save, () => node.focus());
}
