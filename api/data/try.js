// Sending requests from the page: the form at the top, and one in each endpoint.
"use strict";

const $ = (id) => document.getElementById(id);

// An element; attributes that are functions are listeners. Text is text: nothing is parsed as HTML.
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== ""));
  return made;
}

const LONG = 120;

// JSON to read: long strings and lists of numbers are cut.
function short(value) {
  if (typeof value === "string" && value.length > LONG) return value.slice(0, 60) + `... (${value.length} characters)`;
  if (Array.isArray(value)) {
    if (value.length > 8 && typeof value[0] === "number") return [...value.slice(0, 4), `... (${value.length} numbers)`];
    return value.map(short);
  }
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, short(inner)]));
  }
  return value;
}

const pretty = (value) => JSON.stringify(value, null, 2);

function keyHeaders() {
  const key = $("key").value.trim();
  return key ? { "X-API-Key": key } : {};
}

// Sends one request; gives {status, value, text, headers}, status 0 where nobody answered.
async function send(method, path, body, headers = {}) {
  try {
    const response = await fetch(path, { method, body, headers: { ...keyHeaders(), ...headers } });
    const text = await response.text();
    let value;
    try { value = JSON.parse(text); } catch { value = undefined; }
    return { status: response.status, value, text, headers: response.headers };
  } catch (error) {
    return { status: 0, text: String(error), headers: new Headers() };
  }
}

function errorOf(answer) {
  const error = answer.value?.error;
  return (typeof error === "string" ? error : error?.message) ?? answer.text;
}

function shownAnswer(answer) {
  const timing = answer.headers.get("server-timing");
  const head = el("p", {}, el("strong", {}, answer.status ? `HTTP ${answer.status}` : "No answer"));
  if (timing) head.append(" ", el("span", { class: "hint" }, timing));
  const text = answer.value === undefined ? answer.text : pretty(short(answer.value));
  return [head, el("pre", { tabindex: "0" }, text || "(no body)")];
}

function ranks(list) {
  return list.map((entry) => el("div", { class: "rank" },
    el("span", {}, entry.text),
    el("progress", { max: "1", value: entry.score, "aria-label": `Score of ${entry.text}` }),
    el("span", {}, entry.score.toFixed(4))));
}

async function photo() {
  const chosen = $("file").files[0];
  return chosen ?? new File([await (await fetch("docs/example.jpg")).blob()], "example.jpg", { type: "image/jpeg" });
}

async function classify(event) {
  event.preventDefault();
  const button = event.submitter ?? $("try").querySelector("button");
  button.disabled = true;
  const form = new FormData();
  form.append("image", await photo());
  for (const line of $("prompts").value.split("\n")) if (line.trim()) form.append("prompts", line.trim());
  form.append("top_k", $("top").value || "3");
  form.append("score_mode", $("mode").value);
  const answer = await send("POST", "v1/classify", form);
  const list = answer.value?.classifications;
  const found = list ? ranks(list) : [el("p", { class: "bad" }, errorOf(answer))];
  $("try-answer").replaceChildren(...found, ...shownAnswer(answer));
  button.disabled = false;
}

function preview() {
  const chosen = $("file").files[0];
  const old = $("preview").src;
  $("preview").src = chosen ? URL.createObjectURL(chosen) : "docs/example.jpg";
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
}

// A field of an endpoint's form.
function field(label, id, control) {
  control.id = id;
  return el("div", {}, el("label", { for: id }, label), control);
}

// The form in an endpoint. `forms`: media types and examples of its body; `parameters`: what else it takes.
function tryForm(method, path, parameters, forms) {
  const id = `${method}${path}`.replace(/\W+/g, "-");
  const inputs = parameters.map((parameter) => {
    const repeated = parameter.schema.type === "array";
    const control = repeated ? el("textarea", { rows: "2" }) : el("input", { spellcheck: "false" });
    if (parameter.in === "path") control.value = Object.values(parameter.examples ?? {})[0]?.value ?? "";
    const label = `${parameter.name} (${parameter.in}${repeated ? ", one a line" : ""})`;
    return { parameter, control, shown: field(label, `${id}-${parameter.name}`, control) };
  });
  const kinds = Object.keys(forms).filter((kind) => kind !== "multipart/form-data" && kind !== "application/octet-stream");
  const kind = el("select", {}, ...kinds.map((name) => el("option", {}, name)));
  const text = el("textarea", { rows: "8", class: "code", spellcheck: "false" });
  const first = Object.values(forms["application/json"]?.examples ?? {})[0];
  if (first) text.value = pretty(first.value);
  const file = el("input", { type: "file", accept: "image/*" });
  const parts = [];
  if (kinds.length > 1) parts.push(field("Body", `${id}-kind`, kind));
  if (kinds.length) parts.push(field("JSON", `${id}-json`, text));
  const chooser = kinds.includes("image/*") ? field("Image", `${id}-file`, file) : undefined;
  if (chooser) { chooser.hidden = true; parts.push(chooser); }
  kind.addEventListener("change", () => {
    text.parentElement.hidden = kind.value === "image/*";
    chooser.hidden = kind.value !== "image/*";
  });
  const out = el("div", { "aria-live": "polite" });
  const submit = async (event) => {
    event.preventDefault();
    const [target, headers] = request(path, inputs);
    let body;
    if (kinds.length && kind.value === "image/*") {
      body = file.files[0] ?? await photo();
      headers["Content-Type"] = body.type || "application/octet-stream";
    } else if (kinds.length) {
      body = text.value;
      headers["Content-Type"] = "application/json";
    }
    out.replaceChildren(...shownAnswer(await send(method.toUpperCase(), target, body, headers)));
  };
  const optional = inputs.filter((input) => input.parameter.in !== "path").map((input) => input.shown);
  const needed = inputs.filter((input) => input.parameter.in === "path").map((input) => input.shown);
  const more = optional.length ? el("details", {}, el("summary", {}, "Query and headers"), ...optional) : "";
  return el("form", { submit }, ...needed, ...parts, more, el("div", { class: "pair" }, el("button", { type: "submit" }, "Send")), out);
}

// The URL and the headers that a form's fields ask for; relative, so that a path prefix of a proxy is kept.
function request(path, inputs) {
  const query = new URLSearchParams();
  const headers = {};
  let target = path.slice(1);
  for (const { parameter, control } of inputs) {
    const values = parameter.schema.type === "array" ? control.value.split("\n").filter((line) => line.trim()) : [control.value];
    if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(control.value));
    else if (control.value === "") continue;
    else if (parameter.in === "query") for (const value of values) query.append(parameter.name, value);
    else headers[parameter.name] = control.value;
  }
  const text = query.toString();
  return [text ? `${target}?${text}` : target, headers];
}

$("try").addEventListener("submit", classify);
$("file").addEventListener("change", preview);
