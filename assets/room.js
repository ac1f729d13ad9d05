// The interview's room: a countdown that opens the door without a reload, joining in a popup, and the check of devices.
"use strict";
(() => {
  // --- The door ---
  // The server alone decides what the page shows. It says how long that stays true by its own clock; then, when somebody
  // comes back to this tab, and once a minute, the page is asked for again and put in the old one's place.
  const MINUTE = 60_000;
  let live = document.getElementById("live");
  const said = document.getElementById("said");
  const door = () => live.querySelector("#door");
  // Without what changes by itself.
  const content = (part) => {
    const copy = part.cloneNode(true);
    delete copy.querySelector("#door").dataset.changesIn;
    for (const moving of copy.querySelectorAll("[data-countdown], [data-local], #lost")) moving.remove();
    return copy.innerHTML;
  };
  let asServed = content(live);
  let servedAt = performance.now();
  let asking = false;
  let waiting;

  const words = (milliseconds) => {
    const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
    const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
    if (days) return `${days} ${days === 1 ? "day" : "days"} ${hours} h`;
    if (hours) return `${hours} h ${minutes} min`;
    return `${minutes} min ${seconds % 60} s`;
  };
  const announced = new Set();
  const tick = () => {
    const place = live.querySelector("[data-countdown]");
    if (!place) return;
    const left = Number(place.dataset.countdown) - (performance.now() - servedAt);
    const shown = words(left);
    if (place.textContent !== shown) place.textContent = shown;
    // Heard sparingly: five minutes before, one minute before.
    for (const minutes of [5, 1]) {
      const key = `${door().dataset.state} ${minutes}`;
      if (left <= minutes * MINUTE && left > (minutes - 0.5) * MINUTE && !announced.has(key)) {
        announced.add(key);
        said.textContent = place.parentElement.textContent;
      }
    }
  };
  const wait = () => {
    const left = Number(door().dataset.changesIn ?? Infinity) - (performance.now() - servedAt);
    waiting = setTimeout(refresh, Math.min(Math.max(left, 250), MINUTE));
  };
  const show = (fresh) => {
    // The page's policy names where its forms may lead: another meeting needs another page.
    if (fresh.dataset.leadsTo && fresh.dataset.leadsTo !== live.dataset.leadsTo) return reload();
    servedAt = performance.now();
    const [before, after] = [door(), fresh.querySelector("#door")];
    if (content(fresh) === asServed) {
      delete before.dataset.changesIn;
      Object.assign(before.dataset, after.dataset);
      const [place, freshPlace] = [before, after].map((section) => section.querySelector("[data-countdown]"));
      if (place) place.dataset.countdown = freshPlace.dataset.countdown;
      return;
    }
    asServed = content(fresh);
    const hadFocus = live.contains(document.activeElement);
    live.replaceWith(fresh);
    live = fresh;
    live.dispatchEvent(new Event("shown", { bubbles: true }));
    if (before.dataset.state !== after.dataset.state) said.textContent = after.querySelector("[data-say]").textContent;
    if (hadFocus) (after.querySelector("button") ?? document.getElementById("main")).focus();
  };
  // As a GET, also of a page that answered a form, and whatever the fragment. With the link's token, which the address bar
  // no longer shows.
  const address = live.dataset.address;
  const reload = () => location.replace(address);
  async function refresh() {
    if (asking) return;
    asking = true;
    clearTimeout(waiting);
    try {
      const answer = await fetch(address, { headers: { Accept: "text/html" }, cache: "no-store", signal: AbortSignal.timeout(15_000) });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
      // The link or the session has ended: the whole page says so.
      if (!fresh && [401, 403, 404, 410].includes(answer.status)) return reload();
      show(document.importNode(fresh, true));
      live.querySelector("#lost").hidden = true;
      wait();
    } catch {
      live.querySelector("#lost").hidden = false;
      waiting = setTimeout(refresh, 5000 + Math.random() * 5000);
    } finally {
      asking = false;
    }
    tick();
  }
  setInterval(tick, 500);
  tick();
  wait();
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
  addEventListener("focus", refresh);
  // Joining beside this page changes it, too; the server needs a moment to hear of it.
  addEventListener("submit", () => { setTimeout(refresh, 2000); });
  addEventListener("pageshow", (event) => { if (event.persisted) refresh(); });

  // --- Joining in a popup: the form's answer goes into a window that this page has opened ---
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-popup]")) return;
    const popup = open("", "interview", "popup,width=1100,height=760");
    if (popup) {
      // The meeting must not steer this page.
      popup.opener = null;
      popup.focus();
    } else {
      event.preventDefault();
      document.querySelector("[data-blocked]").hidden = false;
    }
  });

  // --- The check of devices: "works" only what was seen to work ---
  const checks = document.getElementById("checks");
  if (!checks) return;
  const row = (name) => checks.querySelector(`[data-check="${name}"]`);
  const say = (name, result, text) => {
    const chip = row(name).querySelector("[data-result]");
    chip.textContent = result;
    chip.className = `chip ${{ works: "good", problem: "bad" }[result] ?? ""}`;
    row(name).querySelector("[data-words]").textContent = text;
    if (result === "works" || result === "problem") said.textContent = `${row(name).querySelector("h3").textContent}: ${result}. ${text}`;
  };
  const pause = (milliseconds) => new Promise((resume) => { setTimeout(resume, milliseconds); });
  const label = (stream) => stream.getTracks()[0].label;

  // What stops each device that is open.
  const devices = new Map();
  const stop = (name) => {
    if (!devices.has(name)) return;
    devices.get(name)();
    devices.delete(name);
    row(name).querySelector("[data-test]").textContent = "Test again";
  };
  const stopAll = () => { for (const name of [...devices.keys()]) stop(name); };
  // The meeting wants them.
  addEventListener("submit", stopAll);
  addEventListener("pagehide", stopAll);

  // A stream of the camera or the microphone, or null with the reason said.
  const stream = async (name, constraints) => {
    if (!navigator.mediaDevices?.getUserMedia) {
      say(name, "problem", "This browser gives pages no devices here. Open this page by https in a current browser.");
      return null;
    }
    say(name, "testing", "Please allow this page to use it.");
    try {
      return await navigator.mediaDevices.getUserMedia(constraints);
    } catch (error) {
      say(name, "problem", {
        NotAllowedError: `The ${name} is not allowed here. Allow it beside the address of this page, or in the settings of your system, and test again.`,
        NotFoundError: `There is no ${name}. Connect one and test again.`,
        NotReadableError: `Another program seems to use the ${name}. Close it and test again.`,
      }[error.name] ?? `The ${name} could not be opened. Restart the browser and test again.`);
      return null;
    }
  };

  const tests = {
    async browser() {
      const missing = [];
      if (!isSecureContext) missing.push("a secure address (https)");
      if (!navigator.mediaDevices?.getUserMedia) missing.push("cameras and microphones");
      try {
        new RTCPeerConnection().close();
        const codecs = (kind) => RTCRtpReceiver.getCapabilities(kind).codecs.map(({ mimeType }) => mimeType.toLowerCase());
        if (!codecs("audio").includes("audio/opus")) missing.push("the sound of calls (Opus)");
        if (!["video/vp8", "video/vp9", "video/h264", "video/av1"].some((codec) => codecs("video").includes(codec))) missing.push("the pictures of calls");
      } catch {
        missing.push("calls (WebRTC)");
      }
      if (missing.length) say("browser", "problem", `It lacks: ${missing.join(", ")}. Use a current Chrome, Edge, Firefox or Safari.`);
      else say("browser", "works", "It has what video calls need.");
    },

    async connection() {
      say("connection", "testing", "Six short requests …");
      const took = [];
      try {
        for (let nth = 0; nth < 6; nth++) {
          const from = performance.now();
          const answer = await fetch(document.querySelector("link[rel=stylesheet]").href, { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(5000) });
          if (!answer.ok) throw new Error(`${answer.status}`);
          took.push(performance.now() - from);
        }
      } catch {
        return say("connection", "problem", "This server did not answer. Check your connection and test again.");
      }
      // The first one may have had to connect.
      const median = Math.round(took.slice(1).sort((one, other) => one - other)[2]);
      if (median > 400) say("connection", "problem", `${median} ms to this server and back is slow. Move closer to the router, use a cable, or stop downloads.`);
      else say("connection", "works", `${median} ms to this server and back; that to the meeting may differ.`);
    },

    async camera() {
      const opened = await stream("camera", { video: true });
      if (!opened) return;
      const video = row("camera").querySelector("video");
      video.srcObject = opened;
      video.hidden = false;
      row("camera").querySelector("[data-test]").textContent = "Stop the camera";
      devices.set("camera", () => {
        for (const track of opened.getTracks()) track.stop();
        video.srcObject = null;
        video.hidden = true;
      });
      try { await video.play(); } catch { /* the picture's size tells below */ }
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [32, 24];
      const drawing = canvas.getContext("2d", { willReadFrequently: true });
      // Cameras take a moment to see light.
      for (let tries = 0; tries < 30 && devices.has("camera"); tries++) {
        await pause(100);
        if (!video.videoWidth) continue;
        drawing.drawImage(video, 0, 0, 32, 24);
        const pixels = drawing.getImageData(0, 0, 32, 24).data;
        if (pixels.some((value, index) => index % 4 !== 3 && value > 24)) return say("camera", "works", `A picture comes from ${label(opened)}.`);
      }
      if (!devices.has("camera")) return say("camera", "not tested", "The test was stopped.");
      say("camera", "problem", video.videoWidth ? "The picture is black. Open the cover of the lens, or choose another camera." : "No picture comes. Connect the camera again, or choose another one.");
    },

    async microphone() {
      const opened = await stream("microphone", { audio: true });
      if (!opened) return;
      const meter = row("microphone").querySelector("meter");
      const context = new AudioContext();
      const analyser = context.createAnalyser();
      context.createMediaStreamSource(opened).connect(analyser);
      meter.hidden = false;
      row("microphone").querySelector("[data-test]").textContent = "Stop the microphone";
      devices.set("microphone", () => {
        for (const track of opened.getTracks()) track.stop();
        context.close();
        meter.hidden = true;
      });
      say("microphone", "testing", "Say something.");
      const samples = new Float32Array(analyser.fftSize);
      let heard = false;
      for (let until = performance.now() + 15_000; performance.now() < until && devices.has("microphone");) {
        analyser.getFloatTimeDomainData(samples);
        const level = Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
        meter.value = Math.min(1, level * 5);
        if (level > 0.01 && !heard) {
          heard = true;
          until = performance.now() + 5000;
          say("microphone", "works", `Sound comes from ${label(opened)}.`);
        }
        await pause(50);
      }
      if (!heard) {
        if (devices.has("microphone")) say("microphone", "problem", "No sound comes. Check that it is not muted and that the right one is chosen, then test again.");
        else say("microphone", "not tested", "The test was stopped before anything was heard.");
      }
      stop("microphone");
    },

    async speaker() {
      const question = row("speaker").querySelector("[data-heard]");
      const context = new AudioContext();
      const [tone, volume] = [context.createOscillator(), context.createGain()];
      tone.frequency.value = 440;
      volume.gain.setValueAtTime(0, context.currentTime);
      volume.gain.linearRampToValueAtTime(0.2, context.currentTime + 0.05);
      volume.gain.setValueAtTime(0.2, context.currentTime + 1);
      volume.gain.linearRampToValueAtTime(0, context.currentTime + 1.2);
      tone.connect(volume).connect(context.destination);
      try { await Promise.race([context.resume(), pause(1000)]); } catch { /* its state tells */ }
      if (context.state !== "running") {
        context.close();
        return say("speaker", "problem", "This browser plays no sound. Allow sound for this page and test again.");
      }
      say("speaker", "testing", "A tone is being played.");
      tone.start();
      tone.stop(context.currentTime + 1.25);
      tone.onended = () => context.close();
      question.hidden = false;
    },
  };
  const running = new Set();
  const run = async (name) => {
    if (running.has(name)) return;
    running.add(name);
    stop(name);
    try { await tests[name](); } finally { running.delete(name); }
  };
  const answers = {
    yes: ["works", "You heard the tone."],
    no: ["problem", "Turn the volume up, choose the right speaker in your system's settings, or connect headphones; then test again."],
  };
  checks.addEventListener("click", async ({ target }) => {
    const answer = target.closest("[data-answer]")?.dataset.answer;
    if (answer) {
      say("speaker", ...answers[answer]);
      row("speaker").querySelector("[data-heard]").hidden = true;
      return row("speaker").querySelector("[data-test]").focus();
    }
    const name = target.closest("[data-test]")?.dataset.test;
    if (name === "all") for (const one of Object.keys(tests)) await run(one);
    else if (name && devices.has(name)) stop(name);
    else if (name) await run(name);
  });
})();
