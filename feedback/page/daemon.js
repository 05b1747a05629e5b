// Talking to the daemon: asking, hearing, and what every panel may want to know.

let csrf = "";
const UNSAFE = ["POST", "PUT", "PATCH", "DELETE"];

// What went wrong, by stable code; `status` 0 means the daemon did not answer.
class Refused extends Error {
	constructor(status, body) {
		const error = body?.error ?? {};
		super(error.message ?? "");
		this.status = status;
		this.code = String(error.code ?? error.type ?? (status ? `http_${status}` : "unreachable"));
		this.hint = error.hint ?? "";
	}
}

// Exchange the one-time token for a cookie, or pick up the session the cookie holds. Raises Refused (401).
export async function signIn(token) {
	const answer = await (token ? request("POST", "/auth/session", { token }) : request("GET", "/auth/session"));
	csrf = (await answer.json()).csrf;
}

async function request(method, path, body, signal) {
	const headers = {};
	if (body) headers["Content-Type"] = "application/json";
	if (UNSAFE.includes(method) && csrf) headers["X-CSRF-Token"] = csrf;
	let answer;
	try {
		answer = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body), cache: "no-store", redirect: "error" });
	} catch (error) {
		if (error.name === "AbortError") throw error;
		throw new Refused(0, null);
	}
	if (answer.ok) return answer;
	throw new Refused(answer.status, await answer.json().catch(() => null));
}

let lost = () => {};
// Call `act` whenever the daemon says that we are not signed in.
export function onSignedOut(act) { lost = act; }

// Ask for `path` and return its JSON; a stale CSRF word is renewed once.
async function call(method, path, body) {
	const answer = await renewed(() => request(method, path, body));
	return answer.status === 204 ? {} : answer.json();
}

async function renewed(ask) {
	try {
		return await ask();
	} catch (error) {
		if (error.status === 403 && error.code.includes("csrf")) {
			await signIn();
			return ask();
		}
		if (error.status === 401) lost();
		throw error;
	}
}

export const get = (path) => call("GET", path);
export const post = (path, body = {}) => call("POST", path, body);
export const patch = (path, body) => call("PATCH", path, body);
export const put = (path, body) => call("PUT", path, body);
export const remove = (path) => call("DELETE", path);

// Ask for a streamed answer; yields each JSON chunk until the stream says it is done.
export async function* stream(path, body, signal) {
	const answer = await renewed(() => request("POST", path, { ...body, stream: true }, signal));
	const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
	const cut = new Refused(0, { error: { code: "cut" } });
	let rest = "";
	while (true) {
		const { value, done } = await reader.read().catch((error) => {
			if (error.name === "AbortError") throw error;
			throw cut;
		});
		if (done) throw cut;
		rest += value;
		const lines = rest.split("\n");
		rest = lines.pop();
		for (const line of lines) {
			if (!line.startsWith("data:")) continue;
			const data = line.slice(5).trim();
			if (data === "[DONE]") return;
			const chunk = JSON.parse(data);
			if (chunk.error) throw new Refused(500, chunk);
			yield chunk;
		}
	}
}

export const state = { status: null, connected: true, running: null };
const watchers = [];

// Call `todo` whenever the state changes.
export const watch = (todo) => watchers.push(todo);

export function change(parts) {
	Object.assign(state, parts);
	for (const todo of watchers) todo();
}

let timer = 0;

// Ask for the status again; once a second while it learns.
export async function refreshStatus() {
	clearTimeout(timer);
	const status = await get("/api/status");
	const running = ["learning", "running", "paused"].includes(status.learner?.state) ? status.learner : null;
	if (running) timer = setTimeout(() => void refreshStatus().catch(() => {}), 1000);
	change({ status, running });
}

// What `path` answers, asked for by `load`: data, or the fault that kept it away; `draw` follows each time.
export function source(path, draw) {
	const one = { data: null, fault: null, load: async () => {
		one.fault = await get(path).then((data) => { one.data = data; return null; }, (error) => error);
		draw();
	} };
	return one;
}

const KINDS = ["correction", "learning", "adapter", "privacy", "health"];
const LONGEST = 8000; // milliseconds between tries

// Listen: `tell(kind)` for each event, `state(connected)` when the line goes or comes.
export function listen(tell, state) {
	let wait = 500;
	let source = null;
	let timer = 0;
	const open = () => {
		clearTimeout(timer);
		source?.close();
		source = new EventSource("/api/events");
		source.onopen = () => { wait = 500; state(true); };
		source.onerror = () => {
			source.close();
			state(false);
			timer = setTimeout(open, wait);
			wait = Math.min(wait * 1.6, LONGEST);
		};
		for (const kind of KINDS) source.addEventListener(kind, () => tell(kind));
	};
	open();
	document.addEventListener("visibilitychange", () => { if (!document.hidden && source.readyState === 2) open(); });
}
