// Health: what the doctor finds, and the one command that mends it.

import { source } from "./daemon.js";
import { button, div, h, icon, li, p, show, span, sync, ul } from "./dom.js";
import { failure, loading } from "./parts.js";
import { has, language, said, t } from "./words.js";

const LEVELS = ["fail", "warn", "ok"];
const SIGNS = { ok: "check", warn: "help", fail: "cross" };
const from = source("/api/health", draw);
const head = div("row split");
const list = ul("lines");

export const panel = { id: "health", mount: (root) => root.append(head, list), refresh: from.load, keys: (key) => key === "r" && from.load, words: draw };

function draw() {
	const { data, fault, load } = from;
	const lines = data?.checks.toSorted((a, b) => LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level));
	show(head, [language(), fault?.code, lines], () => {
		if (fault) return failure(fault, load);
		if (!lines) return loading();
		const worst = lines[0]?.level ?? "ok";
		const n = lines.filter((line) => line.level === worst).length;
		return [h("p", { class: `big ${worst}`, role: "status" }, icon(SIGNS[worst]), " ", t(`health.${worst}`, { n })), button("check_again", load, { sign: "again", kind: "quiet" })];
	});
	sync(list, fault ? [] : lines ?? [], (line) => line.name, view);
}

function view(line) {
	const name = has(`check.${line.name}`) ? t(`check.${line.name}`) : line.name;
	return li(line.level, icon(SIGNS[line.level]), div("", p("", span("strong", name), span("sr", ` (${t(`level.${line.level}`)})`)), p("soft", said(line.text)), line.fix && p("small", /^[a-z]/.test(line.fix) ? line.fix : said(line.fix.replaceAll("`", "")))));
}
