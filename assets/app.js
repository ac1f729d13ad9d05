// What pages do beyond what works without a script: copying, local times. Each part looks for its own elements.
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
    const words = (await copied(button.dataset.copy)) ? "Copied" : "Copying did not work";
    button.focus();
    button.dataset.words = button.textContent;
    said.textContent = button.textContent = words;
    setTimeout(() => {
      button.textContent = button.dataset.words;
      delete button.dataset.words;
      said.textContent = "";
    }, 2500);
  });
  // <span data-local="2030-01-15T19:00:00Z" hidden>: the time where the reader is.
  const showLocalTimes = (root) => {
    for (const place of root.querySelectorAll("[data-local]")) {
      // The zone beside it says the same.
      if (place.dataset.zone === Intl.DateTimeFormat().resolvedOptions().timeZone) continue;
      const instant = new Date(place.dataset.local);
      const style = { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
      place.textContent = `${new Intl.DateTimeFormat("en-GB", style).format(instant)} your time`;
      place.hidden = false;
    }
  };
  showLocalTimes(document);
  // Of what another script has put into the page.
  document.addEventListener("shown", (event) => showLocalTimes(event.target));
  // <form data-schedule>: says what the time means while it is typed; the zone is the browser's unless it was chosen.
  for (const form of document.querySelectorAll("[data-schedule]")) {
    const preview = form.querySelector("[data-preview]");
    const zone = form.elements.timezone;
    if (!form.elements.date.value && zone.value === "UTC") {
      zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
    }
    form.querySelector("[data-check]").hidden = true;
    const line = (text, chip) => {
      const paragraph = document.createElement("p");
      if (chip) {
        const mark = document.createElement("span");
        mark.className = "chip warn";
        mark.textContent = "Please note";
        paragraph.append(mark, " ");
      }
      paragraph.append(text);
      return paragraph;
    };
    const nothing = document.createElement("p");
    nothing.className = "soft";
    nothing.textContent = "When that is, and what speaks against it, is said here.";
    let waiting;
    let newest = 0;
    const ask = async () => {
      const asked = ++newest;
      const query = new URLSearchParams();
      for (const name of ["candidate_id", "interview_id", "date", "time", "timezone", "duration_minutes"]) query.set(name, form.elements[name]?.value ?? "");
      if (!query.get("date") || !query.get("time")) return preview.replaceChildren(nothing);
      try {
        const answer = await fetch(`/dashboard/schedule/preview/?${query}`, { headers: { Accept: "application/json" } });
        const said = await answer.json();
        if (asked !== newest) return;
        if (said.error) {
          preview.replaceChildren(line(said.error, true));
        } else {
          const start = new Date(said.start);
          const style = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
          // Swedes write dates as ISO 8601 does.
          if (start.toLocaleDateString("sv") !== said.day) Object.assign(style, { weekday: "short", day: "numeric", month: "short" });
          const own = new Intl.DateTimeFormat("en-GB", style).format(start);
          preview.replaceChildren(line(`${said.line}, ${own} your time`), ...said.warnings.map((warning) => line(warning, true)));
        }
      } catch {
        if (asked === newest) preview.replaceChildren(nothing);
      }
    };
    form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(ask, 400); });
    const enable = (yes) => { for (const button of form.querySelectorAll("button")) button.disabled = !yes; };
    form.addEventListener("submit", () => { setTimeout(enable, 0, false); });
    // Somebody has come back to the page as it was left.
    addEventListener("pageshow", ({ persisted }) => { if (persisted) enable(true); });
    // What is wrong is said beside its field.
    if (!form.querySelector("[aria-invalid]")) ask();
  }
})();
