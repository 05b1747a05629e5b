// The page as a whole: signing in, panels, theme and language, what the daemon tells, and keys.

import { panel as chat } from "./chat.js";
import { panel as corrections } from "./corrections.js";
import { change, listen, onSignedOut, refreshStatus, signIn, state, watch } from "./daemon.js";
import { button, h, icon, p, section, show, span } from "./dom.js";
import { panel as health } from "./health.js";
import { listenForKeys, showKeys } from "./keys.js";
import { panel as learning } from "./learning.js";
import { failure, guarded, notice, undoLast } from "./parts.js";
import { panel as privacy } from "./privacy.js";
import { keep, language, said, sentences, setLanguage, t } from "./words.js";

const PANELS = [chat, corrections, learning, privacy, health];
const CONCERNS = { // which panels an event concerns
	correction: [chat, corrections], learning: [learning, chat, corrections],
	adapter: [learning, chat, corrections], privacy: [privacy, health], health: [health],
};
const THEMES = ["auto", "light", "dark"];
const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const stale = new Set(PANELS);
let shown = null;
let listening = false;
let ended; // when the last learning run ended, as far as the owner was told
let timer = 0;

function build() {
	for (const panel of PANELS) {
		panel.root = section(`panel ${panel.id}`, h("h1", {}));
		Object.assign(panel.root, { hidden: true, tabIndex: -1 });
		panel.mount(panel.root);
		$("panels").append(panel.root);
	}
	watch(drawState);
	watch(tellOutcome);
	addEventListener("hashchange", follow);
	words();
}

// Everything whose words depend on the language.
function words() {
	$("skip").textContent = t("skip");
	$("tabs").setAttribute("aria-label", t("panels"));
	$("tabs").replaceChildren(...PANELS.map((panel, place) => {
		panel.root.firstChild.textContent = t(`panel.${panel.id}`);
		panel.words();
		panel.tab = h("a", { href: `#${panel.id}`, title: `${t(`panel.${panel.id}`)} (${place + 1})`, "aria-current": panel === shown && "page" }, icon(panel.id), span("", t(`panel.${panel.id}`)));
		return panel.tab;
	}));
	drawTools();
	drawState();
}

function drawTools() {
	const theme = root.dataset.theme ?? "auto";
	const other = language() === "en" ? "zh-CN" : "en";
	show($("tools"), [other, theme], () => [
		button("theme", () => setTheme(THEMES[(THEMES.indexOf(theme) + 1) % 3]), { words: t("theme", { now: t(`theme.${theme}`) }), sign: theme, bare: true }),
		button("language", () => { setLanguage(other); words(); }, { words: other === "en" ? "English" : "中文", kind: "link", lang: other }),
		button("shortcuts", showKeys, { sign: "help", bare: true }),
	]);
}

function setTheme(theme) {
	if (theme === "auto") delete root.dataset.theme;
	else root.dataset.theme = theme;
	keep("theme", theme);
	drawTools();
}

// One line about the daemon, and a banner when something is in its way.
function drawState() {
	const { status, connected, running } = state;
	const n = status?.learning?.waiting ?? 0;
	const [kind, text] = !connected ? ["bad", "state_gone"] : !status ? ["", "loading"] : running ? ["busy", running.steps ? "state_learning" : "learning_now"] : ["good", n ? "state_waiting" : "state_ready"];
	const line = t(text, { n: running?.steps ? Math.round((100 * running.step) / running.steps) : n });
	show($("state"), [kind, line], () => [span(`dot ${kind}`), span("", line)]);
	const off = status?.logging.on === false && status.logging.reason;
	show($("banner"), [language(), connected, off], () => {
		if (!connected) return [p("strong", t("gone")), p("", t("gone_do")), h("code", {}, "corrigible up")];
		return off && [p("strong", t("logging_off")), p("", off.startsWith("Consent") ? t("logging_off.text") : said(off))];
	});
}

function follow() {
	const panel = PANELS.find((one) => `#${one.id}` === location.hash) ?? chat;
	if (panel === shown) return;
	shown = panel;
	for (const one of PANELS) {
		one.root.hidden = one !== panel;
		if (one === panel) one.tab.setAttribute("aria-current", "page");
		else one.tab.removeAttribute("aria-current");
	}
	document.title = `${t(`panel.${panel.id}`)} · Corrigible`;
	if (stale.delete(panel)) void panel.refresh();
	(panel.focus ?? (() => panel.root.focus({ preventScroll: true })))();
	scrollTo(0, panel === chat ? root.scrollHeight : 0);
}

// The daemon told something: ask again for what is shown, the rest later.
function heard(kind) {
	for (const panel of CONCERNS[kind] ?? PANELS) stale.add(panel);
	clearTimeout(timer);
	timer = setTimeout(() => {
		void refreshStatus().catch(() => {}); // the line below the panels already says that it is gone
		if (stale.delete(shown)) void shown.refresh();
	}, 60);
}

// The line to the daemon went or came back: ask for everything again.
function reached(connected) {
	if (connected && !state.connected) heard("back");
	change({ connected });
}

// Say how a learning run ended, wherever the owner is.
function tellOutcome() {
	const last = state.status?.learning?.last;
	const now = last?.time ?? 0;
	if (!state.status || now === ended) return;
	const first = ended === undefined;
	ended = now;
	if (first || !last) return;
	const good = last.decision === "adopt";
	notice(sentences(t(`outcome.${last.decision}`), !good && said(last.reason)), { link: ["see", () => { location.hash = "#learning"; }] });
}

function globalKeys(key) {
	const panel = PANELS[Number(key) - 1];
	if (panel) return () => { location.hash = `#${panel.id}`; follow(); };
	return { "?": showKeys, u: undoLast }[key] ?? shown?.keys(key);
}

// Without a session: how to get one.
function signedOut(error) {
	document.body.classList.add("out");
	show($("banner"), ["out", language(), error.status], () => (error.status === 401 ? [
		p("strong", t("signed_out")), p("", t("signed_out_do")), h("code", {}, "corrigible open"), button("try_again", begin)] : failure(error, begin)));
}

async function begin() {
	const token = /^#token=(.+)$/.exec(location.hash)?.[1];
	if (token) history.replaceState(null, "", "/");
	try {
		await signIn(token && decodeURIComponent(token)).catch((error) => (token ? signIn() : Promise.reject(error)));
	} catch (error) {
		signedOut(error);
		return;
	}
	document.body.classList.remove("out");
	await guarded(refreshStatus);
	drawState();
	follow();
	if (!listening) listen(heard, reached);
	listening = true;
}

build();
onSignedOut(() => signedOut({ status: 401 }));
listenForKeys(globalKeys);
document.addEventListener("visibilitychange", () => { if (!document.hidden && document.body.classList.contains("out")) void begin(); });
void begin();
