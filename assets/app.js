// What pages do beyond what works without a script: copying, readers' own times, the live line of forms. Each part looks
// for its own elements; rules and words are the server's.
"use strict";
(() => {
  // What needs a script is hidden where none runs.
  document.documentElement.classList.add("js");
  // <button data-copy="text">: copies, and says so.
  const copied = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Without a secure connection there is no clipboard: the old way.
      const area = document.createElement("textarea");
      area.value = text;
      area.className = "sr-only";
      document.body.append(area);
      area.select();
      try { return document.execCommand("copy"); } catch { return false; } finally { area.remove(); }
    }
  };
  const said = document.createElement("p");
  said.className = "sr-only";
  said.setAttribute("role", "status");
  document.body.append(said);
  document.addEventListener("click", async ({ target }) => {
    const button = target.closest("[data-copy]");
    if (!button || button.dataset.words) return;
    button.dataset.words = button.textContent;
    const words = (await copied(button.dataset.copy)) ? "Copied" : "Copying did not work";
    button.focus();
    said.textContent = button.textContent = words;
    setTimeout(() => {
      button.textContent = button.dataset.words;
      delete button.dataset.words;
      said.textContent = "";
    }, 2500);
  });
  // <span data-local="SECONDS" data-zone="Europe/Paris" hidden>: the time where the reader is, as the server says it.
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const showLocalTimes = async (root) => {
    const places = [...root.querySelectorAll("[data-local]")].filter((place) => place.dataset.zone !== zone);
    if (!places.length || !zone) return;
    const query = new URLSearchParams({ zone, at: places.map((place) => place.dataset.local) });
    const answer = await fetch(`/interviews/local-times/?${query}`).catch(() => null);
    if (!answer?.ok) return;
    const words = await answer.json();
    places.forEach((place, nth) => {
      // What stands beside it may say the same.
      if (!words[nth] || place.parentElement.textContent.includes(words[nth])) return;
      place.textContent = `${words[nth]} your time`;
      place.hidden = false;
    });
  };
  showLocalTimes(document);
  // Of what another script has put into the page.
  document.addEventListener("shown", (event) => showLocalTimes(event.target));

  // <form data-schedule>: what the server says of its time is asked for while it is typed; the zone is the browser's unless
  // another was chosen.
  for (const form of document.querySelectorAll("[data-schedule]")) {
    if (!form.elements.timezone.value) form.elements.timezone.value = zone ?? "";
    const check = form.querySelector("[data-check]");
    check.hidden = true;
    const names = ["candidate_id", "interview_id", "date", "time", "timezone", "duration_minutes"];
    const place = form.querySelector("[data-preview]");
    const show = (...said) => { if (place.textContent !== said.map((one) => one.textContent ?? one).join("")) place.replaceChildren(...said); };
    const asked = async (query) => {
      try {
        const answer = await fetch(`/dashboard/schedule/preview/?${query}`, { signal: AbortSignal.timeout(8000) });
        return answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-preview]") : null;
      } catch {
        return null;
      }
    };
    let waiting;
    let newest = 0;
    const ask = async () => {
      const nth = ++newest;
      const query = new URLSearchParams({ reader_zone: zone ?? "" });
      for (const name of names) query.set(name, form.elements[name]?.value ?? "");
      if (!query.get("date") || !query.get("time")) return show("Choose a date and a time to see what they mean.");
      const said = await asked(query);
      if (nth !== newest) return;
      // Without an answer nothing is known; the button asks in another way.
      check.hidden = Boolean(said);
      if (said) show(...said.childNodes);
      else show("What this time means could not be asked.");
    };
    form.addEventListener("input", ({ target }) => {
      if (!names.includes(target.name)) return;
      clearTimeout(waiting);
      waiting = setTimeout(ask, 400);
    });
    const enable = (yes) => { for (const button of form.querySelectorAll("button")) button.disabled = !yes; };
    // A second click sends nothing; when no page follows, it may be tried again.
    form.addEventListener("submit", () => { setTimeout(enable, 0, false); setTimeout(enable, 30_000, true); });
    addEventListener("pageshow", ({ persisted }) => { if (persisted) enable(true); });
    // What is wrong is said beside its field, and what was asked is answered.
    if (!form.querySelector("[aria-invalid], [data-preview] [name=seen]")) ask();
  }
})();
