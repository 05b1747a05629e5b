// Before the first paint, so that neither theme nor language flickers.

(() => {
	const root = document.documentElement;
	const kept = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
	const theme = kept("theme");
	if (theme === "light" || theme === "dark") root.dataset.theme = theme;
	const wanted = kept("language") ?? navigator.language ?? "en";
	root.lang = wanted.toLowerCase().startsWith("zh") ? "zh-CN" : "en";
})();
