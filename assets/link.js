// A mailed link's token does not stay in the address bar and the history: this tab keeps it for the address, and hands it
// back when the page is loaded again without one. Runs before anything is shown.
"use strict";
(() => {
  const opens = "opens" in document.currentScript.dataset;
  const kept = `token of ${location.pathname}`;
  const query = new URLSearchParams(location.search);
  const token = query.get("token");
  try {
    if (token) {
      if (opens) sessionStorage.setItem(kept, token);
      else sessionStorage.removeItem(kept);
      query.delete("token");
      history.replaceState(history.state, "", location.pathname + (query.size ? `?${query}` : "") + location.hash);
    } else if (!opens && sessionStorage.getItem(kept)) {
      query.set("token", sessionStorage.getItem(kept));
      location.replace(`${location.pathname}?${query}${location.hash}`);
    }
  } catch {
    // Where nothing can be kept, the address stays as it is.
  }
})();
