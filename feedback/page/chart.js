// The held-out error as a picture, one step a learning run; a table below has its numbers.

import { s } from "./dom.js";
import { day, moment, number, t } from "./words.js";

const [HIGH, LEFT, RIGHT, TOP, LOW] = [240, 32, 12, 14, 34];

const served = (run) => (run.decision === "adopt" ? run.after : run.before);

// Draw the runs, oldest first; each has time, decision, and error before and after, in points. `wide` units.
export function chart(runs, wide) {
	const most = Math.max(10, ...runs.map((run) => Math.max(run.before, run.after)));
	const top = [10, 20, 25, 40, 50, 60, 80].find((one) => one >= most) ?? 100;
	const x = (place) => LEFT + (wide - LEFT - RIGHT) * ((place + 1) / runs.length);
	const y = (value) => TOP + (HIGH - TOP - LOW) * (1 - value / top);
	const points = [[LEFT, y(runs[0].before)], ...runs.map((run, place) => [x(place), y(served(run))])];
	const line = `M${points.map((point) => point.map(Math.round).join(" ")).join("L")}`;
	const label = t("chart_label", { n: runs.length, first: number(runs[0].before), last: number(served(runs.at(-1))) });
	return s("svg", { class: "chart", viewBox: `0 0 ${wide} ${HIGH}`, role: "img", "aria-label": label },
		[0, 0.25, 0.5, 0.75, 1].map((part) => s("g", {},
			s("path", { class: "rule", d: `M${LEFT} ${y(top * part)}H${wide - RIGHT}` }),
			text("end", LEFT - 7, y(top * part) + 4, number(top * part)))),
		s("path", { class: "area", d: `${line}V${y(0)}H${LEFT}` }), s("path", { class: "line", d: line }),
		runs.map((run, place) => mark(run, x(place), y(run.after))),
		runs.length > 1 && text("", LEFT, HIGH - 10, day(runs[0].time)), text("end", wide - RIGHT, HIGH - 10, day(runs.at(-1).time)));
}

const text = (css, x, y, words) => s("text", { class: css, x, y }, words);

// A disc for an adopted adapter, a cross for a rejected one, a ring for one that waits.
function mark(run, x, y) {
	const title = s("title", {}, `${moment(run.time)}: ${t(`decision.${run.decision}`)}, ${number(run.before, 1)} → ${number(run.after, 1)}`);
	const css = `mark ${run.decision}`;
	return run.decision === "reject" ? s("path", { class: css, d: `M${x - 4} ${y - 4}l8 8m0-8l-8 8` }, title) : s("circle", { class: css, cx: x, cy: y, r: 5 }, title);
}
