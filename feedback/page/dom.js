// Elements, buttons, lists that keep the focus. Text only ever becomes text nodes.

import { t } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

function fill(node, { on = {}, act, ...rest }, children) {
	for (const [name, value] of Object.entries(rest)) {
		if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value === true ? "" : value);
	}
	if (act) node.dataset.act = act;
	for (const [event, todo] of Object.entries(on)) node.addEventListener(event, todo);
	node.append(...children.flat(Infinity).filter((child) => child || child === 0));
	return node;
}

// Make an element. `props`: on (events), act (names a control), else attributes; false children are left out.
export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);

export const s = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

// Commonest elements: the class first, then the children.
const of = (tag) => (css, ...children) => h(tag, { class: css || false }, ...children);
export const [p, div, span, li, ul, section, h2] = ["p", "div", "span", "li", "ul", "section", "h2"].map(of);

export const details = (summary, css, ...children) => h("details", { class: css || false }, h("summary", {}, summary), ...children);

const ICONS = {
	chat: "M4 5h16v11H9l-5 4z", corrections: "M4 7h16M4 12h7M7 20l5-6 5 6", learning: "M4 5v15h16M7 15l4-5 3 3 5-7",
	privacy: "M12 3l8 3v6c0 5-4 8-8 9.5C8 20 4 17 4 12V6z", health: "M3 12h4l3-7 4 14 3-7h4", edit: "M4 20h4L19 9l-4-4L4 16z",
	up: "M7 11v9H4v-9zm0 0l4-7c2 0 3 1 2.5 3L13 10h6l-1.5 10H7", down: "M17 13V4h3v9zm0 0l-4 7c-2 0-3-1-2.5-3l.5-3H5L6.5 4H17",
	again: "M20 11a8 8 0 1 0-2 6M20 5v6h-6", copy: "M9 9h11v11H9zM5 15H4V4h11v1",
	trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5", lock: "M6 11h12v9H6zM9 11V8a3 3 0 0 1 6 0v3",
	check: "M4 12l5 6L20 6", cross: "M6 6l12 12M18 6L6 18", back: "M9 5L4 10l5 5M4 10h10a5 5 0 0 1 0 10h-3",
	send: "M12 20V5M5 12l7-7 7 7", stop: "M7 7h10v10H7z",
	light: "M12 7a5 5 0 1 0 0 10 5 5 0 0 0 0-10M12 2v2M12 20v2M2 12h2M20 12h2",
	dark: "M20 14A8 8 0 1 1 10 4a6.5 6.5 0 0 0 10 10z", auto: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
	help: "M9 9a3 3 0 1 1 4 3c-1 .5-1 1-1 2M12 17.5v.1M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18",
};

export const icon = (name) => s("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, s("path", { d: ICONS[name] }));

// A button that does `todo`. `name` is its words' key and names it for keys; `bare` shows the icon alone.
export function button(name, todo, { words = t(name), act = name, sign, kind = "", bare = false, ...rest } = {}) {
	const label = bare ? { "aria-label": words, title: words } : {};
	return h("button", { type: "button", class: `button ${kind} ${bare ? "bare" : ""}`, act, on: { click: todo }, ...label, ...rest },
		sign && icon(sign), !bare && span("", words));
}

export const control = (node, act) => node?.querySelector(`[data-act="${act}"]`);

// Replace what `node` shows when `mark` changed; the focus stays on the control of the same name.
export function show(node, mark, make) {
	const text = JSON.stringify(mark);
	if (node.mark === text) return;
	node.mark = text;
	const act = node.contains(document.activeElement) && document.activeElement.dataset.act;
	node.replaceChildren(...[make()].flat().filter(Boolean));
	if (act) control(node, act)?.focus();
}

// Make the children of `list` stand for `items`; unchanged ones and open editors (`busy`) stay, and so does the focus.
export function sync(list, items, key, make) {
	const old = new Map([...list.children].map((node) => [node.dataset.key, node]));
	const focused = document.activeElement;
	const nodes = items.map((item) => {
		const before = old.get(key(item));
		const mark = document.documentElement.lang + JSON.stringify(item);
		if (before && (before.mark === mark || before.dataset.busy)) return before;
		const node = make(item);
		node.dataset.key = key(item);
		node.mark = mark;
		if (before?.contains(focused)) queueMicrotask(() => (control(node, focused.dataset.act) ?? node).focus());
		before?.replaceWith(node);
		return node;
	});
	nodes.forEach((node, place) => { if (list.children[place] !== node) list.insertBefore(node, list.children[place] ?? null); });
	while (list.children.length > nodes.length) list.lastChild.remove();
}

// Move the focus to the next (1) or previous (-1) child of `list`; from none, to the `first`.
export function step(list, by, first) {
	const all = [...list.children];
	const at = all.findIndex((node) => node.contains(document.activeElement));
	const node = at < 0 ? first : all[at + by];
	node?.focus();
	return node;
}

export const typing = (target) => target.matches?.("textarea, select, input:not([type=checkbox])");
