// What pages do beyond what works without a script: copying, local times. Each part looks for its own elements.
"use strict";
(() => {
  // <button data-copy="text">: copies, and says so.
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    const words = button.textContent;
    button.addEventListener("click", async () => {
      const text = button.dataset.copy;
      let copied = false;
      try {
        await navigator.clipboard.writeText(text);
        copied = true;
      } catch {
        // Without a secure connection there is no clipboard: the old way.
        const area = document.createElement("textarea");
        area.value = text;
        area.className = "sr-only";
        document.body.append(area);
        area.select();
        try { copied = document.execCommand("copy"); } catch { copied = false; }
        area.remove();
        button.focus();
      }
      button.textContent = copied ? "Copied" : "Copying did not work";
      setTimeout(() => { button.textContent = words; }, 2500);
    });
  }
  // <span data-local="2030-01-15T19:00:00Z" hidden>: the time where the reader is.
  for (const place of document.querySelectorAll("[data-local]")) {
    const instant = new Date(place.dataset.local);
    const style = { weekday: "short", day: "numeric", month: "short", hour: "numeric", minute: "2-digit" };
    place.textContent = `${new Intl.DateTimeFormat(undefined, style).format(instant)} your time`;
    place.hidden = false;
  }
})();
