"""Stored text that would like to be a program: fifty ways, none of which runs or asks for anything."""

from typing import Any

import pytest

from tests.page.conftest import Served, Window

CALL = "window.ran=1"
ELSEWHERE = "http://203.0.113.7"
PAYLOADS = [
    f"<script>{CALL}</script>", f"<script src={ELSEWHERE}/a.js></script>", f"<img src=x onerror={CALL}>",
    f"<img src={ELSEWHERE}/beacon.png>", f"<svg onload={CALL}>", f"<svg><script>{CALL}</script></svg>",
    f"<iframe src='javascript:{CALL}'></iframe>", "<iframe srcdoc='<script>parent.ran=1</script>'></iframe>",
    f"<object data={ELSEWHERE}/o.swf></object>", f"<embed src={ELSEWHERE}/e.swf>", f"<body onload={CALL}>",
    f"<video src=x onerror={CALL}></video>", f"<audio src={ELSEWHERE}/a.mp3 autoplay></audio>",
    f"<video><source onerror={CALL}></video>", f"<details open ontoggle={CALL}>x</details>",
    f"<input autofocus onfocus={CALL}>", f"<select autofocus onfocus={CALL}>", f"<textarea autofocus onfocus={CALL}>",
    f"<marquee onstart={CALL}>x</marquee>", f"<a href='javascript:{CALL}'>x</a>", f"[x](javascript:{CALL})",
    f"![x]({ELSEWHERE}/beacon.png)", f"<link rel=stylesheet href={ELSEWHERE}/s.css>",
    f"<link rel=prefetch href={ELSEWHERE}/p>", f"<style>@import url({ELSEWHERE}/s.css)</style>",
    f"<div style='background:url({ELSEWHERE}/b.png)'>x</div>", f"<meta http-equiv=refresh content='0;url={ELSEWHERE}'>",
    f"<base href={ELSEWHERE}>", f"<form action={ELSEWHERE}><button autofocus>x</button></form>",
    f"<math><mi xlink:href='javascript:{CALL}'>x</mi></math>", f"\"><script>{CALL}</script>",
    f"'><img src=x onerror={CALL}>", f"</textarea><script>{CALL}</script>", f"</title><script>{CALL}</script>",
    f"</p></article><script>{CALL}</script>", f"<!--><script>{CALL}</script>-->",
    f"<![CDATA[><script>{CALL}</script>]]>",
    f"<scr<script>ipt>{CALL}</scr</script>ipt>", f"<SCRIPT/XSS>{CALL}</SCRIPT>", f"<img/src='x'/onerror='{CALL}'>",
    f"<img src=`x` onerror=`{CALL}`>", "{{constructor.constructor('window.ran=1')()}}", "${window.ran=1}",
    "#{window.ran=1}", f"javascript:{CALL}", f"data:text/html,<script>{CALL}</script>",
    "\u202e<script>window.ran=1</script>\u202c", "<script>window.ran=1\u2028</script>",
    f"&lt;img src=x onerror={CALL}&gt;", f"<template shadowrootmode=open><script>{CALL}</script></template>",
]  # fmt: skip


@pytest.fixture(scope="module")
def poisoned(served: Served) -> Served:
    """A store in which every payload is a request, an answer, a correction and a reason."""
    for payload in PAYLOADS:
        served.say((payload, payload, f"{payload} {payload}"), reason=payload)
    return served


@pytest.mark.slow
def test_fifty_stored_payloads_run_nothing_and_ask_for_nothing(browser: Any, poisoned: Served) -> None:  # noqa: ANN401
    """Every panel shows them as the text they are, also in the editor and the search field."""
    assert len(set(PAYLOADS)) == 50
    window = Window(browser, poisoned)
    page = window.page
    window.until("document.querySelectorAll('.exchange').length === 30")
    window.keys("ArrowUp")  # the newest payload, in the editor
    assert page.input_value("#editor").startswith(PAYLOADS[-1])
    window.keys("Escape", "2")
    page.wait_for_selector(".item")
    page.get_by_role("button", name="Show more").click()
    window.until("document.querySelectorAll('.item').length === 50")
    shown = set(page.locator(".item .request").all_text_contents())
    assert shown == set(PAYLOADS)
    page.get_by_role("searchbox").fill(PAYLOADS[0])
    window.keys("3", "4", "5")
    page.wait_for_timeout(500)
    assert page.evaluate("window.ran") is None
    assert window.errors == []
    own = f"http://127.0.0.1:{poisoned.port}/"
    assert [url for url in window.requests if not url.startswith(own)] == []
    window.context.close()
