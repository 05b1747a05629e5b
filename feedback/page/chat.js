// Chat: ask, read, correct on the spot. The conversation lives in the store, never in the browser.

import { corrected, edit, exchange, signal } from "./answer.js";
import { get, post, refreshStatus, state, stream, watch } from "./daemon.js";
import { button, control, div, h, show, span, step, sync } from "./dom.js";
import { composing, grow } from "./editor.js";
import { empty, failure, guarded, notice } from "./parts.js";
import { language, t } from "./words.js";

const EXAMPLES = ["turn on the kitchen light", "set a timer for ten minutes", "add oat milk to the shopping list"];
const opened = Date.now() / 1000; // earlier turns do not go along
let turns = []; // oldest first
let serial = 0;
let loaded = false;
let fault = null;
const log = h("div", { class: "log", role: "log" });
const start = div("start");
const field = h("textarea", { class: "field", rows: 1, enterkeyhint: "send", autocomplete: "off" });
const send = span();

export const panel = { id: "chat", mount, refresh, keys, words, focus: () => field.focus() };

function mount(root) {
	root.append(start, log, h("form", { class: "composer" }, field, send));
	field.addEventListener("input", () => grow(field, 220));
	field.addEventListener("keydown", fieldKeys);
	watch(draw);
}

function words() {
	log.setAttribute("aria-label", t("conversation"));
	field.setAttribute("aria-label", t("ask_label"));
	field.placeholder = t("ask_hint");
	send.replaceChildren(button("send", ask, { sign: "send", kind: "main round", bare: true }));
	draw();
}

// Take the last answers from the store; what is being said here stays.
async function refresh() {
	try {
		const since = Date.now() / 1000 - 5; // may not be stored yet
		const { data } = await get("/api/interactions?limit=30");
		const here = new Map(turns.map((turn) => [turn.completion_id, turn]));
		const kept = data.reverse().map((one) => Object.assign(here.get(one.completion_id) ?? { key: one.completion_id }, one));
		turns = [...kept, ...turns.filter((turn) => !kept.includes(turn) && (turn.streaming || turn.error || turn.logged === false || turn.created > since))];
		fault = null;
		loaded = true;
	} catch (error) {
		fault = error;
	}
	draw();
}

const on = { again: (turn, where) => void put(turn.request, turn, where), changed: draw, focus: (turn) => nodeOf(turn)?.focus(), learn: learnNow,
	gone: (turn) => { turns = turns.filter((one) => one !== turn); draw(); field.focus(); } };

export async function learnNow() {
	if (!(await guarded(() => post("/api/learning/run", {})))) return;
	notice(t("learning_started"));
	void guarded(refreshStatus);
}

function draw() {
	const embedded = state.status?.model?.embedded;
	show(start, [language(), loaded, turns.length > 0, fault?.code, embedded], () => {
		if (fault && !turns.length) return failure(fault, refresh);
		if (!loaded || turns.length) return [];
		const tries = EXAMPLES.map((words) => button(words, () => { field.value = words; ask(); }, { kind: "quiet" }));
		return empty("chat", embedded ? "chat_empty_embedded" : "chat_empty", embedded && div("row middle", tries));
	});
	const low = nearEnd();
	const shown = turns.map(({ abort, error, ...rest }) => ({ ...rest, error: error?.code }));
	sync(log, shown, (one) => one.key, (one) => exchange(turns.find((turn) => turn.key === one.key), on));
	if (low) toEnd();
}

const nearEnd = () => innerHeight + scrollY > document.documentElement.scrollHeight - 160;
const toEnd = () => scrollTo(0, document.documentElement.scrollHeight);
const nodeOf = (turn) => [...log.children].find((node) => node.dataset.key === turn?.key);
const coming = () => turns.find((turn) => turn.streaming);

function ask() {
	const request = field.value.trim();
	if (!request || coming()) return;
	field.value = "";
	grow(field, 220);
	void put(request);
}

// The turns that go along, corrected where they were, and the request.
function messages(request, before, where) {
	const most = where ? 0 : state.status?.chat?.turns ?? 0;
	const past = turns.filter((turn) => turn !== before && turn.answer && turn.created >= opened);
	const told = past.slice(past.length - most).flatMap((turn) => [
		{ role: "user", content: turn.request }, { role: "assistant", content: corrected(turn) ? turn.corrected : turn.answer }]);
	return [...told, { role: "user", content: request }];
}

// Put a request to the model and show the answer as it comes; `before`: the turn asked again.
async function put(request, before, where = "") {
	if (coming()) return;
	const body = { model: state.status?.model?.name + where, max_tokens: state.status?.chat?.max_tokens, messages: messages(request, before, where), stream_options: { include_usage: true } };
	if (before?.error) turns = turns.filter((turn) => turn !== before);
	else if (before) signal(before, "regenerate");
	const abort = new AbortController();
	serial += 1;
	const turn = { key: `new-${serial}`, request, answer: "", streaming: true, abort: () => abort.abort() };
	turns.push(turn);
	draw();
	if (before) on.focus(turn);
	toEnd();
	try {
		for await (const chunk of stream("/v1/chat/completions", body, abort.signal)) take(turn, chunk);
	} catch (error) {
		if (error.name !== "AbortError") turn.error = error;
		else if (!turn.answer) turns = turns.filter((one) => one !== turn);
	}
	delete turn.streaming;
	turn.created = Date.now() / 1000;
	draw();
	toEnd();
}

function take(turn, chunk) {
	turn.completion_id ??= chunk.id;
	const { adapters: stack, source, fallback, logged } = chunk.corrigible ?? {};
	if (chunk.corrigible) Object.assign(turn, { stack, source, fallback, logged });
	const piece = chunk.choices?.[0]?.delta?.content;
	if (!piece) return;
	turn.answer += piece;
	if (turn.answer === piece) draw();
	else if (nodeOf(turn)) nodeOf(turn).words.textContent = turn.answer;
	if (nearEnd()) toEnd();
}

// Enter sends; Esc stops what is coming, or goes to the last answer, where single keys work; ↑ corrects it.
function fieldKeys(event) {
	if (composing(event)) return;
	const table = {
		Enter: () => ask(),
		Escape: () => (coming() ? coming().abort() : (log.lastChild ?? document.getElementById("main")).focus()),
		ArrowUp: () => {
			const turn = turns.findLast((one) => one.completion_id && !one.streaming && one.logged !== false);
			if (turn) edit(turn, on, nodeOf(turn));
		},
	};
	if (!table[event.key] || event.shiftKey || (event.key === "ArrowUp" && field.value)) return;
	event.preventDefault();
	table[event.key]();
}

function keys(key) {
	const node = [...log.children].find((one) => one.contains(document.activeElement)) ?? log.lastChild;
	const press = (act) => () => control(node, act)?.click();
	const move = (by) => () => { if (!step(log, by, log.lastChild) && by > 0) field.focus(); };
	return {
		"/": () => field.focus(), j: move(1), k: move(-1), e: press("edit"), r: press("again"),
		g: press("up"), b: press("down"), c: press("copy"), Delete: press("delete"), Escape: () => (coming() ? coming().abort() : field.focus()),
	}[key];
}
