// Corrections: find them again, decide about them, take them back.

import { get } from "./daemon.js";
import { button, control, div, h, show, span, step, sync, ul } from "./dom.js";
import { empty, failure, loading } from "./parts.js";
import { change, erase, row } from "./row.js";
import { language, number, t } from "./words.js";

const STATES = ["all", "pending", "accepted", "discarded"];
const PAGE = 30;
let items = [];
let more = false;
let loaded = false;
let fault = null;
let wanted = "all";
let asked = 0;
const chosen = new Set();
const search = h("input", { class: "field", type: "search", autocomplete: "off" });
const filters = h("div", { class: "row", role: "group" });
const bulk = h("div", { class: "bulk row" });
const list = ul("items");
const end = div();
const on = { reload: () => load(), draw, chosen };

export const panel = { id: "corrections", mount, refresh: () => load(), keys, words };

function mount(root) {
	let timer = 0;
	search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(load, 180); });
	search.addEventListener("keydown", (event) => {
		if (!["Escape", "ArrowDown"].includes(event.key)) return;
		event.preventDefault();
		if (event.key === "Escape" && search.value) { search.value = ""; void load(); }
		else list.firstChild?.focus();
	});
	root.append(div("row top", search, filters), bulk, list, end);
}

function words() {
	search.setAttribute("aria-label", t("search"));
	search.placeholder = t("search_hint");
	filters.setAttribute("aria-label", t("filter"));
	draw();
}

// Ask for the corrections looked for; with `rest`, for those after the ones shown.
async function load(rest = false) {
	asked += 1;
	const mine = asked;
	const parts = new URLSearchParams({ limit: rest === true ? PAGE : Math.max(PAGE, items.length) });
	if (search.value.trim()) parts.set("q", search.value.trim());
	if (wanted !== "all") parts.set("state", wanted);
	if (rest === true) parts.set("before", items.at(-1).id);
	try {
		const { data, has_more: further } = await get(`/v1/corrections?${parts}`);
		if (mine !== asked) return;
		items = rest === true ? [...items, ...data] : data;
		more = further;
		loaded = true;
		fault = null;
		for (const id of chosen) if (!items.some((one) => one.id === id)) chosen.delete(id);
	} catch (error) {
		if (mine === asked) fault = error;
	}
	draw();
}

function draw() {
	const searching = search.value.trim() !== "" || wanted !== "all";
	show(filters, [language(), wanted], () => STATES.map((one) => button(`state.${one}`, () => { wanted = one; void load(); },
		{ kind: "filter", "aria-pressed": String(wanted === one) })));
	const picked = items.filter((one) => chosen.has(one.id));
	bulk.hidden = !picked.length;
	show(bulk, [language(), picked], () => bulkActs(picked));
	sync(list, fault ? [] : items, (one) => one.id, (one) => row(one, on));
	for (const node of list.children) control(node, "select").checked = chosen.has(node.dataset.key);
	show(end, [language(), loaded, items.length, more, searching, fault?.code], () => {
		if (fault) return failure(fault, load);
		if (!loaded) return loading();
		if (items.length) return more && button("more", () => void load(true));
		return empty("corrections", searching ? "none_found" : "no_corrections");
	});
}

function bulkActs(picked) {
	const all = (name, sign, todo) => button(name, async () => { await todo(); draw(); }, { act: `all-${name}`, sign, kind: sign ? "quiet" : "link" });
	return [
		span("strong", t("selected", { n: number(picked.length) })),
		all("accept", "check", () => change(picked, { state: "accepted" }, on)),
		all("discard", "cross", () => change(picked, { state: "discarded" }, on)),
		all("never_share", "lock", () => change(picked, { share: false }, on)),
		all("delete", "trash", () => erase(picked, on)),
		all("select_all", null, () => { for (const one of items) chosen.add(one.id); }),
		all("select_none", null, () => chosen.clear()),
	];
}

// The keys act on all that are selected; without any, on the one that has the focus.
function keys(key) {
	const node = [...list.children].find((one) => one.contains(document.activeElement));
	const press = (act) => () => (chosen.size ? control(bulk, `all-${act}`) ?? control(node, act) : control(node, act))?.click();
	const move = (by) => () => step(list, by, list.firstChild);
	return {
		"/": () => search.focus(), j: move(1), k: move(-1), ArrowDown: node && move(1), ArrowUp: node && move(-1),
		x: () => control(node, "select")?.click(), a: press("accept"), d: press("discard"), e: () => control(node, "edit")?.click(),
		s: press("never_share"), Delete: press("delete"), Escape: () => { chosen.clear(); draw(); },
	}[key];
}
