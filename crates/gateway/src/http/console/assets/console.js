// Comfort on top of pages that work without it: copying, filtering, ages that go on, a log that goes on.
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // <button data-copy="id-of-element" hidden>
  for (const button of all("[data-copy]")) {
    const source = document.getElementById(button.dataset.copy);
    if (!source || !navigator.clipboard) continue;
    const label = button.textContent;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = label; }, 2000);
    });
  }

  // <input data-filter="id-of-container">: children with data-text that lacks the words are hidden.
  for (const input of all("[data-filter]")) {
    const container = document.getElementById(input.dataset.filter);
    if (!container) continue;
    const count = document.getElementById(`${input.dataset.filter}-count`);
    const filter = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const item of all("[data-text]", container)) {
        const text = item.dataset.text.toLowerCase();
        item.hidden = !words.every((word) => text.includes(word));
        if (!item.hidden) shown += 1;
      }
      if (count) count.textContent = `${shown} shown`;
    };
    input.addEventListener("input", filter);
    if (input.value) filter();
  }

  // <time datetime data-age>
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  const age = (root) => {
    for (const time of all("time[data-age]", root)) {
      const seconds = Math.round((Date.parse(time.dateTime) - Date.now()) / 1000);
      if (Number.isNaN(seconds)) continue;
      const [unit, size] = units.find(([, size]) => Math.abs(seconds) >= size) ?? units[3];
      time.textContent = words.format(Math.trunc(seconds / size), unit);
    }
  };
  setInterval(() => age(document), 10000);

  // <section data-live="/ui/…" data-every="3000"> with a <button data-pause hidden> anywhere on the page.
  for (const section of all("[data-live]")) {
    const pause = document.querySelector("[data-pause]");
    let going = true;
    if (pause) {
      pause.hidden = false;
      pause.addEventListener("click", () => {
        going = !going;
        pause.textContent = going ? "Pause" : "Go on";
        pause.setAttribute("aria-pressed", String(!going));
      });
    }
    const reads = () => section.contains(document.activeElement) || String(getSelection()) !== "";
    const look = async () => {
      if (going && !document.hidden && !reads()) {
        try {
          const response = await fetch(section.dataset.live, { headers: { accept: "text/html" } });
          if (response.redirected) { location.reload(); return; }
          if (response.ok) {
            const page = new DOMParser().parseFromString(await response.text(), "text/html");
            section.replaceChildren(...page.body.childNodes);
            age(section);
          }
        } catch { /* The next look may do. */ }
      }
      setTimeout(look, Number(section.dataset.every) || 3000);
    };
    setTimeout(look, Number(section.dataset.every) || 3000);
  }

  // <form data-server-form>: the settings of what is chosen, and what is at the address as it is typed.
  for (const form of all("[data-server-form]")) {
    const words = (element, name) => element.dataset[name]?.split(" ");
    const show = () => {
      const data = new FormData(form);
      const transport = data.get("transport");
      const [auth, flow] = [data.get("authentication"), data.get("oauth_flow_type")];
      for (const element of all("[data-modes], [data-transports]", form)) {
        const modes = words(element, "modes");
        const transports = words(element, "transports");
        const of_mode = !modes || modes.includes(auth) || modes.includes(`${auth}.${flow}`) ||
          (element.querySelector("[name=oauth_flow_type]") !== null && modes.some((mode) => mode.startsWith(`${auth}.`)));
        element.hidden = !of_mode || (transports !== undefined && !transports.includes(transport));
      }
    };
    for (const element of all("[data-without-script]", form)) element.hidden = true;
    for (const name of ["transport", "authentication", "oauth_flow_type"]) {
      for (const control of all(`[name=${name}]`, form)) control.addEventListener("change", show);
    }
    show();

    // The answer goes into the page, and the form stays as it is, secrets and all.
    const trying = form.querySelector("[data-try]");
    const answers = ["server-summary", "tried"].map((id) => document.getElementById(id));
    trying?.addEventListener("click", async (event) => {
      event.preventDefault();
      if (trying.getAttribute("aria-busy") === "true") return;
      trying.setAttribute("aria-busy", "true");
      const [summary, tried] = answers;
      summary.replaceChildren();
      tried.textContent = "Trying…";
      const body = new URLSearchParams(new FormData(form));
      body.set("show", "try");
      try {
        const response = await fetch(form.getAttribute("action"), { method: "POST", body });
        if (response.redirected) {
          tried.textContent = "You are signed out. Sign in in another tab and try again: the form stays as it is.";
        } else {
          const page = new DOMParser().parseFromString(await response.text(), "text/html");
          const known = page.getElementById("tried") !== null;
          summary.replaceChildren(...(known ? page.getElementById("server-summary").childNodes : []));
          tried.replaceChildren(...(page.getElementById("tried") ?? page.querySelector("main")).childNodes);
          for (const answer of answers) for (const element of all("[data-without-script]", answer)) element.hidden = true;
          (summary.firstElementChild ?? tried).scrollIntoView({ block: "nearest" });
        }
      } catch {
        tried.textContent = "The gateway did not answer. Try again.";
      }
      trying.removeAttribute("aria-busy");
    });

    const [url, place, button] = [form.elements.url, form.querySelector("#probe"), form.querySelector("[data-probe]")];
    if (!url || !place) continue;
    const untouched = new Set(["transport", "authentication"].filter((name) => {
      const select = form.elements[name];
      select?.addEventListener("change", (event) => { if (event.isTrusted) untouched.delete(name); });
      return select?.selectedIndex === 0;
    }));
    const fill = (values) => {
      for (const [name, value] of Object.entries(values)) {
        const control = form.elements[name];
        if (!control || !("value" in control)) continue;
        if (control.value === "" || untouched.has(name)) control.value = value;
      }
      show();
    };
    let timer = 0;
    let asked = url.value.trim();
    const probe = async () => {
      const now = url.value.trim();
      asked = now;
      if (!/^https?:\/\/[^/]/i.test(now)) return;
      try {
        const response = await fetch("/ui/servers/probe", { method: "POST", body: new URLSearchParams({ url: now }) });
        if (!response.ok || response.redirected || url.value.trim() !== now) return;
        const page = new DOMParser().parseFromString(await response.text(), "text/html");
        place.replaceChildren(...page.body.childNodes);
        const found = place.querySelector("[data-fill]");
        if (found) fill(JSON.parse(found.dataset.fill));
      } catch { /* The button does it as well. */ }
    };
    url.addEventListener("input", () => {
      clearTimeout(timer);
      if (url.value.trim() !== asked) timer = setTimeout(probe, 700);
    });
    button?.addEventListener("click", (event) => { event.preventDefault(); clearTimeout(timer); probe(); });
  }
})();
