// Draws the page from openapi.json.
"use strict";

let api;

const resolve = (node) => node?.$ref
  ? node.$ref.slice(2).split("/").reduce((at, name) => at[name], api)
  : node;

const nameOf = (node) => node?.$ref?.split("/").pop();

// The little Markdown that descriptions have: paragraphs and `code`.
function prose(text = "") {
  return text.split("\n\n").map((paragraph) => el("p", {}, ...inline(paragraph)));
}

function inline(text = "") {
  return text.split("`").map((part, i) => (i % 2 ? el("code", {}, part) : part));
}

const anchor = (name) => `schema-${name}`;

// What kind of value a schema allows, as text and links.
function kindOf(node) {
  if (node === undefined) return ["any"];
  const name = nameOf(node);
  if (name) return [el("a", { href: `#${anchor(name)}` }, name)];
  if ("const" in node) return [el("code", {}, JSON.stringify(node.const))];
  if (node.enum) return node.enum.flatMap((value, i) => [i ? " | " : "", el("code", {}, JSON.stringify(value))]);
  const choices = node.oneOf ?? node.anyOf;
  if (choices && !node.properties) return choices.flatMap((choice, i) => [i ? " or " : "", ...kindOf(choice)]);
  if (node.type === "array") return ["array of ", ...kindOf(node.items)];
  return [[node.type ?? "any"].flat().join(" or ") + (node.format ? ` (${node.format})` : "")];
}

function limitsOf(node) {
  const found = [];
  const range = (low, high, unit) => {
    if (low !== undefined && high !== undefined) found.push(low === high ? `${low}${unit}` : `${low} to ${high}${unit}`);
    else if (low !== undefined) found.push(`at least ${low}${unit}`);
    else if (high !== undefined) found.push(`at most ${high}${unit}`);
  };
  range(node.minItems, node.maxItems, " entries");
  range(node.minLength, node.maxLength, " characters");
  range(node.minimum, node.maximum, "");
  if (node.pattern) found.push(`pattern ${node.pattern}`);
  if (node.default !== undefined) found.push(`default ${JSON.stringify(node.default)}`);
  return found.join(", ");
}

function row(name, node, needed, description) {
  const limits = node.$ref ? "" : limitsOf(node);
  return el("tr", {},
    el("th", { scope: "row" }, el("code", {}, name), " ", needed ? el("span", { class: "needed" }, "required") : ""),
    el("td", {}, ...kindOf(node), limits ? el("span", { class: "limits" }, limits) : ""),
    el("td", {}, ...inline(description ?? node.description)));
}

function table(heads, rows) {
  return el("table", { class: "wide" },
    el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, ...rows));
}

// The fields of an object, or of each that may stand in its place.
function schemaView(node) {
  const name = nameOf(node);
  if (name) return [el("p", {}, "Schema ", el("a", { href: `#${anchor(name)}` }, name))];
  if (node.properties) {
    const rows = Object.entries(node.properties).map(([key, inner]) => row(key, inner, node.required?.includes(key)));
    return [...prose(node.description), table(["Field", "Value", "Meaning"], rows), ...rules(node)];
  }
  const choices = node.oneOf ?? node.anyOf;
  if (choices) return choices.flatMap((choice, i) => [el("p", {}, i ? "or" : "Either"), ...schemaView(choice)]);
  return [...prose(node.description), el("p", {}, ...kindOf(node), " ", el("span", { class: "hint" }, limitsOf(node)))];
}

// "Exactly one of" where the schema says so by its required fields.
function rules(node) {
  const groups = [node, ...(node.allOf ?? [])].map((part) => part.oneOf).filter((list) => list?.every((one) => one.required));
  return groups.map((list) => el("p", { class: "hint" }, "Exactly one of: ", list.map((one) => one.required.join(" + ")).join(", ")));
}

function examples(map = {}) {
  return Object.values(map).filter((one) => "value" in one).flatMap((one) => [
    el("p", { class: "hint" }, one.summary ?? ""),
    el("pre", { tabindex: "0" }, typeof one.value === "string" ? one.value : pretty(short(one.value))),
  ]);
}

function bodyView(content) {
  return Object.entries(content).flatMap(([kind, body]) => [
    el("h4", {}, el("code", {}, kind)), ...schemaView(resolve(body.schema)), ...examples(body.examples),
  ]);
}

function answerView(responses) {
  const good = Object.entries(responses).filter(([status]) => status < "400").flatMap(([status, answer]) => [
    el("h3", {}, `${status} `, ...inline(resolve(answer).description)),
    ...Object.values(resolve(answer).content ?? {}).flatMap((one) => [...schemaView(resolve(one.schema)), ...examples(one.examples)]),
  ]);
  const bad = Object.entries(responses).filter(([status]) => status >= "400").map(([status, answer]) => el("tr", {},
    el("th", { scope: "row" }, status), el("td", {}, ...inline(resolve(answer).description))));
  return [...good, el("details", {}, el("summary", {}, "What can go wrong"), table(["Status", "Cause"], bad))];
}

function operationView(method, path, operation) {
  const parameters = operation.parameters.map(resolve);
  const content = operation.requestBody?.content ?? {};
  const rows = parameters.map((one) => row(`${one.name} (${one.in})`, one.schema, one.required, one.description));
  const inside = el("div", { class: "inside" });
  const view = el("details", { class: "operation", id: operation.operationId },
    el("summary", {}, el("span", { class: `method ${method}` }, method), el("code", {}, path),
      el("span", { class: "about" }, operation.summary)), inside);
  // Drawn when it is first opened: the page appears at once, on a phone too.
  view.addEventListener("toggle", () => {
    if (inside.childElementCount) return;
    inside.append(...prose(operation.description),
      ...(Object.keys(content).length ? [el("h3", {}, "Body"), ...bodyView(content)] : []),
      el("h3", {}, "Parameters"), table(["Name", "Value", "Meaning"], rows),
      ...answerView(operation.responses), el("h3", {}, "Send one"), tryForm(method, path, parameters, content));
  });
  return view;
}

function draw() {
  $("version").textContent = api.info.version;
  $("key-field").hidden = !api.components.securitySchemes;
  $("intro").append(...prose(api.info.description));
  for (const { name } of api.tags) {
    const links = el("ul");
    $("nav").append(el("h2", {}, name), links);
    $("operations").append(el("h2", {}, name));
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        if (operation.tags[0] !== name) continue;
        $("operations").append(operationView(method, path, operation));
        links.append(el("li", {}, el("a", { href: `#${operation.operationId}` },
          el("span", { class: `method ${method}` }, method), path)));
      }
    }
  }
  for (const [name, node] of Object.entries(api.components.schemas)) {
    $("schemas").append(el("details", { class: "schema", id: anchor(name) },
      el("summary", {}, el("code", {}, name)), el("div", { class: "inside" }, ...schemaView(node))));
  }
  open();
}

// A link to an endpoint or a schema opens it.
function open() {
  const target = location.hash.length > 1 && $(location.hash.slice(1));
  if (target?.tagName === "DETAILS") {
    target.open = true;
    target.scrollIntoView();
  }
}

window.addEventListener("hashchange", open);
fetch("openapi.json").then((response) => response.json()).then((value) => { api = value; draw(); })
  .catch((error) => $("intro").append(el("p", { class: "bad" }, `openapi.json can't be read: ${error}`)));
