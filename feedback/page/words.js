// The words of the page in the language chosen, numbers and times as that language writes them.

import PHRASES, { SAID } from "./phrases.js";

// The language in use: "en" or "zh-CN".
export const language = () => (document.documentElement.lang === "zh-CN" ? "zh-CN" : "en");

// Keep a word of the settings; a browser that keeps nothing is no reason to fail.
export function keep(name, value) {
	try { localStorage.setItem(name, value); } catch { /* the choice then lasts as long as the page */ }
}

export function kept(name) {
	try { return localStorage.getItem(name); } catch { return null; }
}

export function setLanguage(name) {
	document.documentElement.lang = name;
	keep("language", name);
}

// The forms of `key`, whose dots lead through the groups; undefined where there are none.
function forms(key) {
	const found = key.split(".").reduce((at, part) => at?.[part], PHRASES);
	const words = found?._ ?? found;
	return typeof words === "string" ? words.split("|") : undefined;
}

// The words for `key`, with {name} replaced by values.name; n = 1 may have a form of its own.
export function t(key, values = {}) {
	const all = forms(key) ?? [key, key];
	const place = language() === "en" ? 0 : 1;
	const words = (values.n === 1 && all[place + 2]) || all[place];
	return words.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

export const has = (key) => forms(key) !== undefined;

// What the daemon says in English, as a sentence, in the language chosen where we know it.
export function said(text) {
	if (!text) return "";
	const known = language() === "en" ? undefined : SAID.find(([pattern]) => pattern.test(text));
	return known ? text.replace(...known) : text[0].toUpperCase() + text.slice(1);
}

// Sentences one after the other; Chinese puts no space between them.
export const sentences = (...all) => all.filter(Boolean).join(language() === "en" ? " " : "");

export const number = (value, digits = 0) =>
	new Intl.NumberFormat(language(), { maximumFractionDigits: digits, minimumFractionDigits: digits }).format(value);

export const signed = (value, digits = 1) => (value > 0 ? "+" : value < 0 ? "−" : "±") + number(Math.abs(value), digits);

export const size = (bytes) => (bytes < 1000 ? `${number(bytes)} B` : `${number(bytes / 1000, 1)} kB`);

// A small probability: 1e-6 as 10⁻⁶, anything else as it is.
export function tiny(value) {
	const power = Math.round(Math.log10(value));
	const digits = [...String(Math.abs(power))].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("");
	return Math.abs(value / 10 ** power - 1) < 1e-9 ? `10⁻${digits}` : String(value);
}

export const moment = (seconds) =>
	new Intl.DateTimeFormat(language(), { dateStyle: "medium", timeStyle: "short" }).format(seconds * 1000);

// Seconds since the epoch as "5 minutes ago", or the date when it is long past.
export function ago(seconds) {
	const past = Date.now() / 1000 - seconds;
	const format = new Intl.RelativeTimeFormat(language(), { numeric: "auto" });
	if (past < 45) return format.format(0, "second");
	if (past < 3600) return format.format(-Math.round(past / 60), "minute");
	if (past < 86400) return format.format(-Math.round(past / 3600), "hour");
	if (past < 7 * 86400) return format.format(-Math.round(past / 86400), "day");
	return moment(seconds);
}

export const day = (seconds) => new Intl.DateTimeFormat(language(), { month: "short", day: "numeric" }).format(seconds * 1000);
