"use strict";
// The report's own script: theme, contents, claims filter, sortable tables, zoom and downloads.
// Without it all claims, figures and tables are there to read; it asks for nothing outside the page.
(() => {
  const root = document.documentElement;
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const make = (tag, attributes = {}, text = "") => {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    return element;
  };
  root.classList.add("js");

  // Theme: that of the system until one is chosen; kept where the browser lets a file keep anything.
  const themeButton = document.querySelector(".theme");
  const setTheme = (theme) => {
    if (theme) root.dataset.theme = theme;
    const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    themeButton.textContent = dark ? "Light" : "Dark";
    themeButton.dataset.next = dark ? "light" : "dark";
    themeButton.setAttribute("aria-label", `Change to ${dark ? "light" : "dark"} colours`);
  };
  let kept = null;
  try { kept = localStorage.getItem("valleys-theme"); } catch { /* storage is off */ }
  setTheme(kept === "dark" || kept === "light" ? kept : null);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(root.dataset.theme));
  themeButton.addEventListener("click", () => {
    setTheme(themeButton.dataset.next);
    try { localStorage.setItem("valleys-theme", root.dataset.theme); } catch { /* for this visit only */ }
  });

  // A link into what is folded opens it; not all browsers do so by themselves.
  const unfold = () => {
    const target = document.getElementById(location.hash.slice(1));
    for (let at = target?.parentElement; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    target?.scrollIntoView();
  };
  addEventListener("hashchange", unfold);
  if (location.hash) unfold();

  // Contents: open beside the page, closed above it.
  const contents = document.querySelector(".contents details");
  const wide = matchMedia("(min-width: 80rem)");
  const placeContents = () => { contents.open = wide.matches; };
  placeContents();
  wide.addEventListener("change", placeContents);

  // Sortable tables. A cell's data-sort is its value, else its text is; cells without a value come last.
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.sort ?? cell.textContent.trim();
  };
  const compare = (a, b, down) => {
    if ((a === "") !== (b === "")) return a === "" ? 1 : -1;
    const [x, y] = [Number(a), Number(b)];
    const numbers = !Number.isNaN(x) && !Number.isNaN(y);
    const order = numbers ? x - y || 0 : a.localeCompare(b);
    return down ? -order : order;
  };
  const sorters = new Map(); // table -> sort(column, direction)
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    const sort = (column, direction) => {
      heads.forEach((head, i) => head.setAttribute("aria-sort", i === column ? direction : "none"));
      const order = direction === "none" ? rows : [...rows].sort((p, q) =>
        compare(valueOf(p, column), valueOf(q, column), direction === "descending"));
      body.append(...order);
      table.dispatchEvent(new Event("sorted"));
    };
    heads.forEach((head, column) => {
      const button = make("button", { type: "button" }, head.textContent.trim());
      head.replaceChildren(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" };
        sort(column, next[head.getAttribute("aria-sort")]);
      });
    });
    sorters.set(table, sort);
  }

  // Claims: those that match, the first of them until all are asked for.
  const claims = document.getElementById("all-claims");
  if (claims) {
    const first = Number(claims.dataset.first);
    const filter = document.querySelector(".filter");
    const [search, number, order] = ["search", "number", "order"].map((name) => filter.elements[name]);
    const found = document.querySelector(".found span");
    const more = document.querySelector(".found button");
    let whole = false;
    const show = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const verdicts = new Set(all("input[type=checkbox]:checked", filter).map((box) => box.value));
      const rows = [...claims.tBodies[0].rows];
      const matching = rows.filter((row) => {
        const text = `${row.textContent} ${row.dataset.claim}`.toLowerCase();
        return verdicts.has(row.dataset.verdict)
          && (!number.value || row.dataset.number === number.value)
          && words.every((word) => text.includes(word));
      });
      const shown = new Set(whole ? matching : matching.slice(0, first));
      for (const row of rows) row.hidden = !shown.has(row);
      const part = matching.length === rows.length ? `${rows.length}` : `${matching.length} that match (of ${rows.length})`;
      found.textContent = `${shown.size} of ${part} rows shown.`;
      more.hidden = matching.length <= first;
      more.textContent = whole ? `Show the first ${first}` : `Show all ${matching.length}`;
    };
    for (const head of claims.tHead.rows[0].cells) {
      const name = head.textContent;
      order.append(make("option", { value: `${head.cellIndex} ascending` }, `${name} ↑`));
      order.append(make("option", { value: `${head.cellIndex} descending` }, `${name} ↓`));
    }
    order.addEventListener("change", () => {
      const [column, direction] = order.value.split(" ");
      sorters.get(claims)(Number(column), direction);
    });
    claims.addEventListener("sorted", show);
    filter.addEventListener("input", show);
    filter.addEventListener("submit", (event) => event.preventDefault());
    filter.addEventListener("reset", () => setTimeout(() => { // once its fields are
      whole = false;
      sorters.get(claims)(0, "none");
    }));
    more.addEventListener("click", () => { whole = !whole; show(); });
    show();
  }

  // Downloads.
  const save = (blob, name) => {
    const link = make("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };
  const bytesOf = (dataUri) => Uint8Array.from(atob(dataUri.slice(dataUri.indexOf(",") + 1)), (c) => c.charCodeAt(0));
  const MAX_SIDE = 16000, MAX_AREA = 64e6; // of a canvas, in the browser with the lowest limits but phones
  const toPng = (image) => new Promise((resolve) => {
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    const scale = Math.min(300 / 96, MAX_SIDE / Math.max(width, height), Math.sqrt(MAX_AREA / (width * height)));
    const canvas = make("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
    const context = canvas.getContext("2d");
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob(resolve, "image/png");
  });
  const toCsv = (table) => {
    const quote = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const lines = [...table.rows].map((row) => [...row.cells].map((cell) => quote(cell.textContent.trim())).join(","));
    return new Blob(["\ufeff" + lines.join("\r\n") + "\r\n"], { type: "text/csv" });
  };
  // What is carried compressed, tables' CSV and figures' SVG, is saved as plain text where the browser can.
  const plain = "DecompressionStream" in window;
  const textOf = (link) =>
    new Response(new Blob([bytesOf(link.href)]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  const savePlain = (link, name, type, label) => {
    if (!plain) return;
    link.firstElementChild.textContent = label;
    link.addEventListener("click", async (event) => {
      event.preventDefault();
      save(new Blob([await textOf(link)], { type }), name);
    });
  };
  for (const link of all("a[download$='.csv.gz']")) savePlain(link, link.download.slice(0, -3), "text/csv", "CSV");
  // A figure's drawing: its SVG, or what the page shows of it.
  const drawingOf = async (figure) => {
    const image = make("img");
    image.src = plain
      ? `data:image/svg+xml;charset=utf-8,${encodeURIComponent(await textOf(figure.querySelector(".svg")))}`
      : figure.querySelector("img").src;
    await image.decode();
    return image;
  };
  for (const figure of all("figure[data-name]")) {
    const name = figure.dataset.name;
    savePlain(figure.querySelector(".svg"), `${name}.svg`, "image/svg+xml", "SVG");
    figure.querySelector(".png").addEventListener("click", async () =>
      save(await toPng(await drawingOf(figure)), `${name}.png`));
  }
  for (const button of all("button[data-csv-of]")) {
    button.addEventListener("click", () =>
      save(toCsv(document.getElementById(button.dataset.csvOf)), button.dataset.file));
  }
  // Zoom: a figure alone on the screen; the view scrolls, buttons, keys and the wheel change the size.
  const dialog = document.querySelector("dialog.zoom");
  const view = dialog.querySelector(".view");
  let picture = make("img");
  view.append(picture);
  const heading = dialog.querySelector("strong");
  const fitting = () => Math.min(view.clientWidth / picture.naturalWidth, view.clientHeight / picture.naturalHeight);
  // On a small screen the page shows a figure whole, so what is opened is large enough to read, and scrolls.
  const READABLE = 560;
  const opening = () => Math.max(fitting(), Math.min(1, READABLE / picture.naturalWidth));
  let scale = 1;
  const zoom = (to, x = view.clientWidth / 2, y = view.clientHeight / 2) => {
    const before = picture.getBoundingClientRect();
    const frame = view.getBoundingClientRect();
    const [u, v] = [(frame.left + x - before.left) / before.width, (frame.top + y - before.top) / before.height];
    scale = Math.min(Math.max(to, 0.1), 20);
    picture.style.width = `${Math.round(picture.naturalWidth * scale)}px`;
    const after = picture.getBoundingClientRect();
    view.scrollLeft += after.left + u * after.width - (frame.left + x);
    view.scrollTop += after.top + v * after.height - (frame.top + y);
  };
  const open = (figure) => {
    heading.textContent = figure.querySelector("h4").textContent;
    dialog.showModal();
    drawingOf(figure).then((drawing) => {
      drawing.alt = figure.querySelector("img").alt;
      picture.replaceWith(drawing);
      picture = drawing;
      zoom(opening());
    });
  };
  for (const figure of all("figure[data-name]")) {
    figure.querySelector(".open").addEventListener("click", () => open(figure));
    figure.querySelector("img").addEventListener("click", () => open(figure));
  }
  const STEP = 1.3;
  const actions = { in: () => zoom(scale * STEP), out: () => zoom(scale / STEP), fit: () => zoom(fitting()), close: () => dialog.close() };
  for (const button of all("button[data-zoom]", dialog)) button.addEventListener("click", actions[button.dataset.zoom]);
  dialog.addEventListener("keydown", (event) => {
    const action = { "+": "in", "=": "in", "-": "out", "0": "fit" }[event.key];
    if (action && !event.ctrlKey && !event.metaKey) { actions[action](); event.preventDefault(); }
  });
  view.addEventListener("wheel", (event) => {
    event.preventDefault();
    const frame = view.getBoundingClientRect();
    zoom(scale * Math.exp(-event.deltaY / 500), event.clientX - frame.left, event.clientY - frame.top);
  }, { passive: false });
  view.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button === 0) {
      view.classList.add("held");
      view.setPointerCapture(event.pointerId);
      event.preventDefault();
    }
  });
  view.addEventListener("pointermove", (event) => {
    if (view.classList.contains("held")) { view.scrollLeft -= event.movementX; view.scrollTop -= event.movementY; }
  });
  for (const end of ["pointerup", "pointercancel"]) view.addEventListener(end, () => view.classList.remove("held"));
})();
