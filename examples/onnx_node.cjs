// Contextual vectors in JavaScript, from the folder that `biloom export-onnx` wrote.
//
//     npm install onnxruntime-node
//     biloom export-onnx MODEL FOLDER --stream
//     node onnx_node.cjs FOLDER < texts.txt
//     node onnx_node.cjs FOLDER --parts 8 < texts.txt
//
// Reads one text per line and prints a JSON object per text: its token ids, and its vectors as
// [layer][token][dim]. With --parts N, each text is read N tokens at a time, forward direction only.
//
// In a browser, use onnxruntime-web: it has the same functions, and reads the same files.
//
// Words, unigram and BPE models are encoded by this file. A tokenizer.json of another kind needs
// `npm install @huggingface/tokenizers`.

const fs = require("node:fs");
const path = require("node:path");
const ort = require("onnxruntime-node");

const read = (folder, name) => JSON.parse(fs.readFileSync(path.join(folder, name), "utf8"));

// ---- cleaning: as in training --------------------------------------------------------------------

const WHITESPACE =
  /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/u; // Python's, not JavaScript's
const UNWANTED = /[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff\p{Surrogate}]/gu;

function clean(text, settings) {
  text =
    settings.control_characters === "remove"
      ? text.replace(UNWANTED, "")
      : text.replace(/\p{Surrogate}/gu, "\ufffd");
  if (settings.unicode !== "none") text = text.normalize(settings.unicode);
  if (settings.whitespace === "collapse") {
    text = text.split(WHITESPACE).filter(Boolean).join(" ");
  }
  return text;
}

// ---- tokenizers: each returns the tokens of a cleaned text as [id, text] --------------------------

function wordTokenizer(file) {
  const ids = new Map(Object.entries(file.model.vocab));
  return (text) =>
    text
      .split(WHITESPACE)
      .filter(Boolean)
      .map((word) => [ids.get(word) ?? 0, word]);
}

const bytesOf = (character, ids) =>
  [...new TextEncoder().encode(character)].map((byte) => {
    const name = `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
    return [ids.get(name), name];
  });

// The text as SentencePiece sees it: a space is put before it, unless it is empty.
const begun = (text, file) => {
  const replaces = file.normalizer.normalizers.some((one) => one.type === "Replace");
  return text && " " + (replaces ? text.replaceAll("\u2581", " ") : text);
};

// Replaces runs of characters without a piece by their bytes, or by one unknown token.
function known(pieces, file, ids) {
  const found = [];
  let wasUnknown = false;
  for (const piece of pieces) {
    const id = ids.get(piece);
    if (id !== undefined) found.push([id, piece]);
    else if (file.model.byte_fallback) found.push(...bytesOf(piece, ids));
    else if (wasUnknown) found.at(-1)[1] += piece;
    else found.push([0, piece]);
    wasUnknown = id === undefined;
  }
  return found;
}

// The most probable pieces (Kudo 2018). Sums are rounded to 32 bits, as SentencePiece does.
function unigramTokenizer(file) {
  const scores = new Map();
  const ids = new Map();
  let longest = 1;
  let least = Infinity;
  file.model.vocab.forEach(([piece, score], id) => {
    ids.set(piece, id);
    least = Math.min(least, score);
    if (piece.startsWith("\0") || /^<0x[0-9A-F]{2}>$/.test(piece)) return; // no part of a text
    scores.set(piece, Math.fround(score));
    longest = Math.max(longest, [...piece].length);
  });
  const unknown = Math.fround(least - 10);
  return (text) => {
    const characters = [...begun(text, file)];
    const best = characters.map(() => ({ score: -Infinity, start: -1 }));
    for (let start = 0; start < characters.length; start++) {
      const before = start ? best[start - 1].score : 0;
      let piece = "";
      for (let end = start; end < characters.length && end - start < longest; end++) {
        piece += characters[end];
        const score = scores.get(piece) ?? (end === start ? unknown : undefined);
        if (score === undefined) continue;
        const total = Math.fround(before + score);
        if (total > best[end].score) best[end] = { score: total, start };
      }
    }
    const pieces = [];
    for (let end = characters.length - 1; end >= 0; end = best[end].start - 1) {
      pieces.push(characters.slice(best[end].start, end + 1).join(""));
    }
    return known(pieces.reverse(), file, ids);
  };
}

// Merges pairs of pieces, the pair with the lowest rank first (Sennrich et al. 2016).
function bpeTokenizer(file) {
  const ids = new Map(Object.entries(file.model.vocab));
  const ranks = new Map(file.model.merges.map((pair, rank) => [pair.join("\0"), rank]));
  return (text) => {
    const pieces = [...begun(text, file)];
    const rankAt = (place) => ranks.get(pieces[place] + "\0" + pieces[place + 1]) ?? Infinity;
    const ranked = pieces.map((_, place) => rankAt(place)); // of each piece with the next one
    for (;;) {
      let first = 0;
      for (let place = 1; place < ranked.length; place++) {
        if (ranked[place] < ranked[first]) first = place;
      }
      if (!(ranked[first] < Infinity)) return known(pieces, file, ids);
      pieces.splice(first, 2, pieces[first] + pieces[first + 1]);
      ranked.splice(first + 1, 1);
      ranked[first] = rankAt(first);
      if (first) ranked[first - 1] = rankAt(first - 1);
    }
  };
}

function libraryTokenizer(file) {
  const { Tokenizer } = require("@huggingface/tokenizers");
  const tokenizer = new Tokenizer(file, {});
  return (text) => {
    const { ids, tokens } = tokenizer.encode(text, { add_special_tokens: false });
    return ids.map((id, place) => [id, tokens[place]]);
  };
}

function makeTokenizer(folder, { kind, file, moved_ids }) {
  const makers = {
    word: wordTokenizer,
    unigram: unigramTokenizer,
    bpe: bpeTokenizer,
    char: bpeTokenizer,
    huggingface: libraryTokenizer,
  };
  if (!makers[kind]) throw new Error(`${file}: this example has no ${kind} tokenizer`);
  const encode = makers[kind](read(folder, file));
  return (text) => encode(text).map(([id, piece]) => [moved_ids[id] ?? id, piece]);
}

// ---- characters: for models that read words by their spelling -------------------------------------

function speller(settings, encode) {
  const limit = settings.max_characters - 2;
  const row = (characters) => [settings.begin, ...characters, settings.end];
  if (settings.unit === "utf-8 byte") {
    return (word) => row([...new TextEncoder().encode(word)].slice(0, limit));
  }
  const places = new Map(settings.code_points.map((point, place) => [point, place]));
  return (word) => {
    const cut = [...word].slice(0, limit);
    const boundary = settings.boundaries[cut.join("")];
    const characters = cut.map((character) => {
      const place = places.get(character.codePointAt(0));
      return place === undefined ? settings.unknown : settings.first_character + place;
    });
    const bounds = { 1: settings.text_begin, 2: settings.text_end };
    const found = row(boundary ? [bounds[boundary]] : characters);
    if (settings.first_word !== null) {
      const [[id]] = boundary ? [[boundary]] : encode(cut.join(""));
      found[0] = settings.first_word + id;
    }
    return found;
  };
}

// ---- the model ----------------------------------------------------------------------------------

const padded = (rows, value) => {
  const width = Math.max(1, ...rows.map((row) => row.length));
  const data = rows.flatMap((row) => [...row, ...Array(width - row.length).fill(value)]);
  return new ort.Tensor("int64", BigInt64Array.from(data, BigInt), [rows.length, width]);
};
const numbers = (values) =>
  new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [values.length]);

class Model {
  static async load(folder) {
    const model = new Model();
    model.folder = folder;
    model.about = read(folder, "interface.json");
    if (model.about.format > 1) throw new Error("interface.json is of a newer format");
    model.encode = makeTokenizer(folder, model.about.tokenizer);
    const { spellings } = model.about.tokenizer;
    model.spellings = spellings && read(folder, spellings);
    model.spell = model.about.characters && speller(model.about.characters, model.encode);
    return model;
  }

  session(form) {
    this.sessions ??= {};
    const data = () => fs.readFileSync(path.join(this.folder, this.about.files[form].file));
    return (this.sessions[form] ??= ort.InferenceSession.create(data()));
  }

  tokens(text) {
    return this.encode(clean(text, this.about.cleaning));
  }

  // The inputs of a batch of token lists, each token as [id, text].
  inputs(texts) {
    const lengths = numbers(texts.map((tokens) => tokens.length));
    if (!this.spell) {
      return { ids: padded(texts.map((tokens) => tokens.map(([id]) => id)), 0), lengths };
    }
    const rows = new Map(); // spelling -> its row in `characters`
    const ids = texts.map((tokens) =>
      tokens.map(([id, piece]) => {
        const word = this.spellings && id ? this.spellings[id] : piece;
        if (!rows.has(word)) rows.set(word, rows.size);
        return rows.get(word);
      }),
    );
    if (!rows.size) rows.set("", 0);
    const characters = padded([...rows.keys()].map(this.spell), this.about.characters.pad);
    return { ids: padded(ids, 0), lengths, characters };
  }

  // All layers of a batch of texts, for each text [layer][token] -> vector.
  async embed(texts) {
    const tokens = texts.map((text) => this.tokens(text));
    const session = await this.session("text");
    const { layers } = await session.run(this.inputs(tokens));
    return tokens.map((of, row) => ({ ids: of.map(([id]) => id), layers: rowOf(layers, row, of.length) }));
  }

  // All layers of the forward direction, a part of the text at a time.
  async embedInParts(text, size) {
    const tokens = this.tokens(text);
    const session = await this.session("stream");
    const [layers, , width] = this.about.files.stream.inputs.find(({ name }) => name === "state").shape;
    let state = new ort.Tensor("float32", new Float32Array(layers * width), [layers, 1, width]);
    const found = Array.from({ length: this.about.layers }, () => []);
    for (let start = 0; start < tokens.length; start += size) {
      const part = tokens.slice(start, start + size);
      const begins = new ort.Tensor("bool", [start === 0], [1]);
      const output = await session.run({ ...this.inputs([part]), begins, state });
      state = output.state_after;
      rowOf(output.layers, 0, part.length).forEach((of, layer) => found[layer].push(...of));
    }
    return { ids: tokens.map(([id]) => id), layers: found };
  }
}

// The vectors of one text of a batch: [layer][token] -> Float32Array.
function rowOf(tensor, row, length) {
  const [layers, batch, time, dim] = tensor.dims;
  return Array.from({ length: layers }, (_, layer) =>
    Array.from({ length }, (_, token) => {
      const start = ((layer * batch + row) * time + token) * dim;
      return tensor.data.subarray(start, start + dim);
    }),
  );
}

async function main([folder, option, size]) {
  const model = await Model.load(folder);
  const texts = fs.readFileSync(0, "utf8").split("\n").slice(0, -1);
  const found =
    option === "--parts"
      ? await Promise.all(texts.map((text) => model.embedInParts(text, Number(size))))
      : await model.embed(texts);
  for (const { ids, layers } of found) {
    const vectors = layers.map((layer) => layer.map((vector) => [...vector]));
    console.log(JSON.stringify({ ids, layers: vectors }));
  }
}

module.exports = { Model };
if (require.main === module) main(process.argv.slice(2));
