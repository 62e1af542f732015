'use strict';
// Draws the page from the data it carries: a run (`data.timeline`), or the list of all runs (`data.runs`).
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);

  // What cannot be seen, or would reorder or hide the text around it, is made visible; what is endless is cut.
  const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\uffff]|[\u{e0000}-\u{e007f}]/gu;
  const clean = (text) => {
    const shown = String(text).replace(HIDDEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
    return shown.length > 2000 ? `${shown.slice(0, 2000)}… (${shown.length - 2000} more characters)` : shown;
  };
  const make = (space) => (name, attributes = {}, ...children) => {
    const element = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? '' : key === 'points' ? value : clean(value));
    }
    for (const child of children.flat(4)) {
      if (child !== null && child !== undefined && child !== '') element.append(child instanceof Node ? child : clean(child));
    }
    return element;
  };
  const h = make('http://www.w3.org/1999/xhtml');
  const s = make('http://www.w3.org/2000/svg');

  // Numbers a person reads.
  const fixed = (value, digits) => {
    const text = Math.abs(value).toFixed(digits);
    return value < 0 && Number(text) !== 0 ? `−${text}` : text;
  };
  const secs = (value) => fixed(value, 3);
  const ms = (value) => fixed(value, Math.abs(value) < 10 && Math.abs(value - Math.round(value)) > 0.05 ? 1 : 0);
  const span = (value) => {
    const seconds = value / 1e3;
    if (Math.abs(value) < 1e3) return `${ms(value)} ms`;
    if (seconds < 120) return `${fixed(seconds, seconds < 10 ? 2 : 1)} s`;
    return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  };
  const size = (bytes) => (bytes < 1e3 ? `${bytes} B` : bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
  const plural = (count, one) => `${count} ${one}${count === 1 ? '' : 's'}`;
  const when = (unixMs) => new Date(unixMs).toISOString().slice(0, 19).replace('T', ' ') + ' UTC';
  const max = (values, least = 0) => values.reduce((a, b) => Math.max(a, b), least);
  const href = (name) => './' + name.split('/').map(encodeURIComponent).join('/');
  const section = (title, ...children) => h('section', {}, h('h2', {}, title), ...children);
  const rows = (head, body) => h('div', { class: 'wide', tabindex: 0, role: 'region', 'aria-label': 'table' },
    h('table', { class: 'data' }, h('thead', {}, h('tr', {}, head.map((it) => h('th', {}, it)))), h('tbody', {}, body)));

  // Verdict first: what was expected, what was there, and where.
  const WORDS = { passed: 'Passed', failed: 'Failed', skipped: 'Skipped', unknown: 'Not judged' };
  const failure = (it) => h('div', { class: 'failure' },
    h('p', { class: 'what' }, it.part ? h('b', {}, `${it.part}: `) : '', it.what),
    it.expected || it.actual ? h('dl', {},
      it.expected ? [h('dt', {}, 'expected'), h('dd', {}, h('pre', {}, it.expected))] : '',
      it.actual ? [h('dt', {}, 'found'), h('dd', {}, h('pre', {}, it.actual))] : '') : '',
    typeof it.at === 'number' ? h('p', {}, h('a', { href: '#timeline' }, `at ${secs(it.at)} s on the timeline`)) : '');
  const verdict = (part) => h('section', { class: `verdict ${part.verdict}`, 'aria-label': 'Verdict' },
    h('h2', {}, WORDS[part.verdict], part.failures.length > 1 ? `: ${plural(part.failures.length, 'check')} did not hold` : ''),
    part.skipped ? h('p', {}, part.skipped) : '', part.failures.map(failure));

  const tiles = ({ timeline: { rows: all, lanes }, numbers }) => {
    const tile = (name, value, note, tone = '') => h('div', { class: `tile ${tone}` }, h('h3', {}, name), h('p', { class: 'value' }, value), h('p', { class: 'note' }, note));
    const why = Object.entries(numbers.fallback).map(([reason, count]) => `${reason} ${count}`).join(', ');
    const fallbacks = Object.values(numbers.fallback).reduce((a, b) => a + b, 0);
    const waited = lanes.stalls.reduce((sum, it) => sum + it.to - it.from, 0) * 1e3;
    const trips = all.filter((row) => 'processed' in row.at && row.rtt_ms !== null).map((row) => row.rtt_ms).sort((a, b) => a - b);
    const most = max(lanes.in_flight.map((it) => it[1]));
    const limit = lanes.limit.length ? lanes.limit[lanes.limit.length - 1][1] : null;
    const worst = max(lanes.deltas.map((it) => Math.abs(it[2])));
    const late = max(lanes.latency.map((it) => it[1]));
    const exit = numbers.exit === null ? 'no exit logged' : `exit code ${numbers.exit}`;
    const trouble = numbers.warnings + numbers.errors;
    return h('section', { class: 'tiles', 'aria-label': 'Result in numbers' },
      tile('Segments', numbers.segments, `${span(numbers.media_ms)} of media`),
      tile('Dubbed', `${numbers.dubbed} of ${numbers.segments}`, numbers.original ? `${numbers.original} original as intended` : 'on air with the answer of STS', 'dubbed'),
      tile('Fallback', fallbacks, why || 'none', fallbacks ? 'fallback' : ''),
      tile('Stalls', lanes.stalls.length, lanes.stalls.length ? `${span(waited)} in all` : 'output never waited', lanes.stalls.length ? 'warn' : ''),
      tile('A/V delta', lanes.deltas.length ? `${ms(worst)} ms` : '–', lanes.deltas.length ? 'worst' : 'no pair on air', worst > 120 ? 'bad' : ''),
      tile('Latency', lanes.latency.length ? `${fixed(lanes.latency[0][1], 2)} s` : '–', lanes.latency.length ? `at the start, most ${fixed(late, 2)} s` : 'no output'),
      tile('STS round trip', trips.length ? span(trips[trips.length >> 1]) : '–', trips.length ? `median, most ${span(trips[trips.length - 1])}` : 'no answer with audio'),
      tile('In flight', most, limit === null ? 'no limit known' : `most at once, limit ${limit}`, limit !== null && most > limit ? 'bad' : ''),
      tile('Worker log', trouble ? trouble : 'clean', `${plural(numbers.warnings, 'warning')}, ${plural(numbers.errors, 'error')}, ${exit}`, numbers.errors ? 'bad' : numbers.warnings ? 'warn' : ''));
  };

  // The timeline: lanes under one another on a common axis.
  const WIDTH = 1240, LEFT = 132, RIGHT = 1050;
  const chart = ({ timeline, part }) => {
    const { begin, end, lanes } = timeline;
    const room = (end - begin) * 0.012;
    const [from, to] = [begin - room, end + room];
    const x = (at) => LEFT + Math.min(1, Math.max(0, (at - from) / (to - from))) * (RIGHT - LEFT);
    const out = [];
    let y = 26;
    const tipped = (shape, tip) => { if (tip) shape.append(s('title', {}, tip)); return shape; };
    const rect = (x0, y0, width, height, cls, tip) => tipped(s('rect', { x: x0, y: y0, width: Math.max(0, width), height, class: cls }), tip);
    const line = (x1, y1, x2, y2, cls) => s('line', { x1, y1, x2, y2, class: cls });
    const label = (x0, y0, cls, text, anchor = 'start') => s('text', { x: x0, y: y0 + 4, class: cls, 'text-anchor': anchor }, text);
    const diamond = (at, middle, arm, cls, tip) => tipped(s('path', { class: cls, d: `M${x(at) - arm} ${middle}l${arm} ${-arm} ${arm} ${arm} ${-arm} ${arm}z` }), tip);
    const dot = (at, middle, r, cls, tip) => tipped(s('circle', { cx: x(at), cy: middle, r, class: cls }), tip);
    const curve = (points, cls) => s('polyline', { points: points.map((it) => it.join()).join(' '), class: cls });
    const lane = (name, about, height, draw, remark = '') => {
      const middle = y + height / 2;
      out.push(label(LEFT - 14, middle - (about ? 6 : 0), 'name', name, 'end'), label(LEFT - 14, middle + 7, 'about', about, 'end'));
      out.push(...draw(middle).flat(3), label(RIGHT + 12, middle, 'about', remark));
      y += height + 6;
      out.push(line(8, y, WIDTH - 8, y, 'sep'));
      y += 6;
    };
    const nothing = (middle, why) => label(LEFT + 8, middle, 'about', why);
    const marks = (all, middle, arm) => all.map((it) => diamond(it.at, middle, arm, `mark ${it.tone}`, `${secs(it.at)} s: ${it.detail}`));
    const states = (name, about, { bands, marks: points, remark }, empty) => {
      const under = points.length && bands.length ? 11 : 0;
      lane(name, about, 24 + under, () => [
        bands.length || points.length ? [] : nothing(y + 12, empty),
        bands.map((band) => {
          const width = Math.max(1.5, x(band.to) - x(band.from));
          const tip = `${name}: ${band.label} from ${secs(band.from)} s to ${secs(band.to)} s (${span((band.to - band.from) * 1e3)})\n${band.detail}`;
          return [rect(x(band.from), y + 4, width, 16, `band ${band.tone}`, tip),
            width > band.label.length * 5.7 + 8 ? label(x(band.from) + 6, y + 12, 'in-band', band.label) : []];
        }),
        marks(points, y + 12 + (under ? 15 : 0), 4.5)], remark);
    };
    const fragment = (row, index, middle, height, words) => {
      const half = Math.max(2, height * 0.28), { at } = row, tone = row.outcome;
      const wait = [at.ready ?? at.left, at.on_air ?? at.decided ?? at.back];
      return s('a', { href: `#f${index}` }, s('title', {}, story(row)),
        rect(8, middle - height / 2, RIGHT + 180, height, 'row'),
        words ? [label(LEFT - 14, middle, 'row-name', named(row), 'end'), label(RIGHT + 12, middle, `remark ${tone}`, remark(row).slice(0, 30))] : [],
        'from' in at ? [rect(x(at.from), middle - half * 0.35, x(at.ready) - x(at.from), half * 0.7, 'cut'), line(x(at.ready), middle - half, x(at.ready), middle + half, 'ready')] : [],
        wait[0] !== undefined && wait[1] !== undefined ? line(x(wait[0]), middle, x(wait[1]), middle, 'wait') : [],
        'left' in at ? rect(x(at.left), middle - half, Math.max(3, ('back' in at ? x(at.back) : RIGHT) - x(at.left)), half * 2, `sts ${tone}${'back' in at ? '' : ' open'}`) : [],
        'on_air' in at ? rect(x(at.on_air), middle - half, Math.max(1.5, x(at.until) - x(at.on_air) - 1), half * 2, `air ${tone}`) : [],
        'queued' in at ? dot(at.queued, middle + half + 1.5, 1.6, 'queued') : [],
        'applied' in at ? diamond(at.applied, middle - half - 1, 2.4, 'applied') : [],
        'decided' in at && tone === 'fallback' ? s('path', { class: 'gave-up', d: `M${x(at.decided) - half} ${middle - half}l${half * 2} ${half * 2}m0 ${-half * 2}l${-half * 2} ${half * 2}` }) : [],
        'late' in at ? dot(at.late, middle, half * 0.8, 'late') : []);
    };

    states('input', 'RTSP', lanes.input, 'no input');
    states('STS link', 'seen by the worker', lanes.link, 'no connection');
    states('STS service', 'what it did', lanes.service, 'nothing in its journal');
    const all = timeline.rows;
    const height = all.length ? Math.min(19, Math.max(5, 900 / all.length)) : 19;
    lane(all.length ? '' : 'fragments', '', height * Math.max(1, all.length), (middle) => (all.length
      ? all.map((row, index) => fragment(row, index, y + height * (index + 0.5), height, index % Math.ceil(11 / height) === 0))
      : [nothing(middle, 'no segment was cut')]));
    const most = max(lanes.in_flight.map((it) => it[1])), limit = max(lanes.limit.map((it) => it[1]));
    lane('in flight', 'sent, not settled', 46, () => {
      const bottom = y + 46, high = Math.max(most, Math.min(limit, most * 4 + 4), 1);
      const level = (count) => bottom - Math.min(1, count / high) * 38;
      const points = [[LEFT, bottom]];
      for (const [at, count] of lanes.in_flight) points.push([x(at), points[points.length - 1][1]], [x(at), level(count)]);
      points.push([RIGHT, points[points.length - 1][1]]);
      return [lanes.limit.map(([at, count], n) => line(x(at), level(count), n + 1 < lanes.limit.length ? x(lanes.limit[n + 1][0]) : RIGHT, level(count), 'limit')), curve(points, 'steps')];
    }, `most ${most}, ${lanes.limit.length ? `limit ${limit}` : 'no limit known'}`);
    states('breaker', 'circuit to STS', lanes.breaker, 'not used');
    states('backpressure', 'asked by STS', lanes.pace, 'not used');
    const worst = max(lanes.deltas.map((it) => Math.abs(it[2])));
    lane('A/V delta', 'audio − video, ms', 66, (middle) => {
      const level = (value) => middle - (value / Math.max(144, worst * 1.1)) * 33;
      return [[120, 0, -120].map((value) => [line(LEFT, level(value), RIGHT, level(value), value ? 'limit' : 'zero'), value ? label(RIGHT + 12, level(value), 'about', (value > 0 ? '+' : '') + ms(value)) : []]),
        lanes.deltas.map(([at, batch, value]) => dot(at, level(value), 3.5, Math.abs(value) > 120 ? 'point bad' : 'point good', `batch ${batch} at ${secs(at)} s: ${ms(value)} ms`)),
        marks(lanes.corrections.marks, middle + 29, 4), lanes.deltas.length ? [] : nothing(middle - 10, 'no pair went on air')];
    }, lanes.deltas.length ? `worst ${ms(worst)} ms` : '');
    const values = lanes.latency.map((it) => it[1]), low = values.length ? Math.min(...values) : 0, high = max(values);
    lane('output latency', 'and stalls, s', 58, (middle) => {
      const level = (value) => y + 50 - ((value - low) / Math.max(0.5, high - low)) * 42;
      return [lanes.stalls.map((it) => rect(x(it.from), y, Math.max(2, x(it.to) - x(it.from)), 58, 'stall', `${it.detail} until ${secs(it.to)} s`)),
        values.length ? curve(lanes.latency.map(([at, value]) => [x(at), level(value)]), 'curve') : nothing(middle, 'nothing went out'),
        lanes.catch_up.map((it) => rect(x(it.from), y + 55, Math.max(2, x(it.to) - x(it.from)), 3, 'faster', `output plays faster from ${secs(it.from)} s to ${secs(it.to)} s: ${it.detail}`))];
    }, values.length ? `${fixed(low, 2)} to ${fixed(high, 2)} s${lanes.stalls.length ? `, ${plural(lanes.stalls.length, 'stall')}` : ''}` : '');

    const bottom = y, step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600].find((it) => (to - from) / it <= 16) || 7200;
    const grid = [];
    for (let tick = Math.ceil(from / step); tick * step <= to; tick += 1) {
      const at = tick * step, text = `${Number(at.toFixed(1))} s`.replace('-', '−');
      grid.push(line(x(at), 20, x(at), bottom, tick ? 'grid' : 'origin'), label(x(at), 10, 'tick', text, 'middle'), label(x(at), bottom + 10, 'tick', text, 'middle'));
    }
    const wrong = part.failures.filter((it) => typeof it.at === 'number').map((it) => s('g', { class: 'wrong' },
      s('title', {}, `${secs(it.at)} s: ${it.what}`), line(x(it.at), 18, x(it.at), bottom, ''), s('path', { d: `M${x(it.at)} 18l8 -7v14z` })));
    const cursor = s('g', { id: 'cursor', visibility: 'hidden' }, line(0, 18, 0, bottom, 'cursor'), s('text', { class: 'cursor', 'text-anchor': 'middle', x: 0, y: bottom + 14 }));
    const drawing = s('svg', { id: 'chart', viewBox: `0 0 ${WIDTH} ${bottom + 24}`, role: 'img', tabindex: 0, 'aria-label': 'Timeline of the run; the tables below hold the same in words. Arrow keys move the cursor, Enter shows the log there.' }, grid, out, wrong, cursor);
    point(drawing, cursor, { x, from, to, at: (px) => from + ((px - LEFT) / (RIGHT - LEFT)) * (to - from) });
    return drawing;
  };

  // The cursor follows the pointer or the arrow keys; a click or Enter leads to the log of that moment.
  const point = (drawing, cursor, scale) => {
    let now = 0;
    const show = (at) => {
      const inside = at >= scale.from && at <= scale.to;
      cursor.setAttribute('visibility', inside ? 'visible' : 'hidden');
      if (!inside) return;
      now = at;
      cursor.setAttribute('transform', `translate(${scale.x(at).toFixed(2)} 0)`);
      cursor.lastChild.textContent = `${fixed(at, 2)} s`;
    };
    const seconds = (event) => {
      const box = drawing.getBoundingClientRect();
      return scale.at(((event.clientX - box.left) / box.width) * WIDTH);
    };
    drawing.addEventListener('pointermove', (event) => show(seconds(event)));
    drawing.addEventListener('pointerleave', () => cursor.setAttribute('visibility', 'hidden'));
    drawing.addEventListener('click', (event) => { if (!event.target.closest('a')) reveal(seconds(event)); });
    drawing.addEventListener('keydown', (event) => {
      const step = ((scale.to - scale.from) / 200) * (event.shiftKey ? 10 : 1);
      if (event.key === 'Enter' && event.target === drawing) reveal(now);
      else if (event.key === 'ArrowRight') show(Math.min(scale.to, now + step));
      else if (event.key === 'ArrowLeft') show(Math.max(scale.from, now - step));
      else return;
      event.preventDefault();
    });
  };
  const reveal = (seconds) => {
    const line = [...document.querySelectorAll('#lines > li:not([hidden])')].find((it) => Number(it.dataset.at) >= seconds);
    if (!line) return;
    document.querySelectorAll('.here').forEach((it) => it.classList.remove('here'));
    line.classList.add('here');
    line.scrollIntoView({ block: 'center' });
  };

  const named = ({ batch, sequence }) => (batch === null ? `seq ${sequence ?? '–'}` : `batch ${batch} · ${sequence === null ? 'not sent' : `seq ${sequence}`}`);
  const why = (row) => [row.outcome === 'dubbed' ? '' : row.reason, row.outcome === 'dubbed' ? '' : row.detail, 'late' in row.at ? `(answered at ${secs(row.at.late)} s)` : ''].filter(Boolean).join(' ');
  const remark = (row) => [row.outcome, row.outcome === 'dubbed' && row.rtt_ms !== null ? `${ms(row.rtt_ms)} ms` : '', why(row)].filter(Boolean).join(' · ');
  const story = (row) => {
    const moments = { ready: 'ready', sent: 'sent', arrived: 'arrived at STS', queued: 'queued by STS', answered: 'answered by STS', processed: 'processed', settled: 'no longer waited for', decided: 'original audio chosen', applied: 'applied', on_air: 'on air' };
    const lines = Object.entries(moments).filter(([key]) => key in row.at)
      .map(([key, what]) => `${what} ${secs(row.at[key])} s${key !== 'ready' && 'ready' in row.at ? ` (ready + ${ms((row.at[key] - row.at.ready) * 1e3)} ms)` : ''}`);
    return [named(row), row.fragment_id, ...lines, remark(row), row.stall_ms === null ? '' : `output waited ${span(row.stall_ms)} for it`].filter(Boolean).join('\n');
  };
  const fragments = (all) => {
    const number = (value) => h('td', { class: 'n' }, value ?? '–');
    const body = all.map((row, index) => h('tr', { id: `f${index}` },
      h('td', { class: 'n' }, row.batch === null ? '–' : h('a', { href: '#log', 'data-find': `batch=${row.batch}` }, row.batch)), number(row.sequence), number(row.session),
      h('td', { class: 'id', title: row.fragment_id }, row.fragment_id ? row.fragment_id.slice(0, 8) : '–'),
      h('td', {}, `${row.kind ?? '–'} ${row.duration_ms === null ? '' : ms(row.duration_ms)}`),
      ['ready', 'left', 'queued', 'processed', 'applied', 'on_air'].map((key) => number(key in row.at ? secs(row.at[key]) : null)),
      [row.rtt_ms, row.stall_ms, row.delta_ms].map((value) => number(value === null ? null : ms(value))),
      h('td', {}, h('span', { class: `badge ${row.outcome}` }, row.outcome)), h('td', { class: 'why' }, why(row))));
    return section('Fragments', body.length ? [h('p', { class: 'hint' }, 'Seconds on the axis of the timeline; lengths in ms. Queued and applied are from the journal of the service, the rest is from the worker’s log.'),
      rows(['batch', 'seq', 'session', 'fragment', 'segment', 'ready', 'sent', 'queued', 'processed', 'applied', 'on air', 'rtt', 'stall', 'A/V', 'outcome', 'reason'], body)]
      : h('p', { class: 'hint' }, 'No segment was cut and no fragment was sent.'));
  };
  const counts = (all) => (all.length ? section('Counts, seen from three sides', h('p', { class: 'hint' }, 'A difference is no fault by itself: an answer may leave the service and come too late.'),
    rows(['what', 'metrics', 'log', 'journal', ''], all.map(([what, ...sides]) => h('tr', {}, h('td', {}, what), sides.map((it) => h('td', { class: 'n' }, it ?? '–')),
      h('td', {}, new Set(sides.filter((it) => it !== null)).size > 1 ? h('span', { class: 'badge warn' }, 'differ') : ''))))) : '');

  const film = ({ film: strip, video, captions }) => {
    if (!video) return '';
    const player = h('video', { src: href(video), controls: true, preload: 'none', playsinline: true });
    if (captions) {
      const track = h('track', { kind: 'captions', label: 'dub', srclang: 'und', default: true });
      track.src = captions;
      player.append(track);
    }
    const thumb = (_, n) => {
      const picture = h('button', { type: 'button', class: 'thumb', 'aria-label': `Play from ${n * strip.every} s` });
      Object.assign(picture.style, { width: `${strip.width}px`, height: `${strip.height}px`, backgroundImage: `url(${strip.uri})`, backgroundPosition: `${-n * strip.width}px 0` });
      picture.addEventListener('click', () => { player.currentTime = n * strip.every; player.play(); });
      return h('figure', {}, picture, h('figcaption', {}, `${Number((n * strip.every).toFixed(1))} s`));
    };
    return section('Recording', h('div', { class: 'film' }, strip ? Array.from({ length: strip.count }, thumb) : ''), player);
  };

  const LEVELS = ['TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR'];
  const log = ({ log: lines, strays, skipped, shared }) => {
    const items = lines.map(([at, level, event, message, fields], index) => {
      const pairs = Object.entries(fields).map(([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
      const item = h('li', { class: LEVELS[level].toLowerCase(), 'data-at': at ?? '' }, h('span', { class: 'n' }, at === null ? '–' : secs(at)), h('span', { class: 'level' }, LEVELS[level]),
        h('span', { class: 'event' }, event), h('span', { class: 'said' }, message, pairs.map((pair) => [' ', h('code', {}, pair)])));
      if (skipped && index === lines.length / 2) item.prepend(h('em', {}, `${plural(skipped, 'line')} left out here: worker.log has them. `));
      return item;
    });
    const texts = items.map((item) => item.textContent.toLowerCase());
    const level = h('select', {}, ['all', 'DEBUG and above', 'INFO and above', 'WARN and above', 'ERROR'].map((it, n) => h('option', { value: n }, it)));
    const search = h('input', { type: 'search', placeholder: 'words, event, batch=3 …', autocomplete: 'off', spellcheck: 'false' });
    const shown = h('output');
    let exact = '';
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/);
      // What a link asked for is a whole word: batch=1 is not batch=10.
      const hit = (n) => lines[n][1] >= Number(level.value) && (exact ? texts[n].split(/\s+/).includes(exact) : words.every((word) => texts[n].includes(word)));
      items.forEach((item, n) => { item.hidden = !hit(n); });
      shown.textContent = `${items.filter((item) => !item.hidden).length} of ${plural(items.length + skipped, 'line')}`;
    };
    level.addEventListener('change', filter);
    search.addEventListener('input', () => { exact = ''; filter(); });
    document.addEventListener('click', (event) => {
      const link = event.target.closest('[data-find]');
      if (!link) return;
      level.value = '0';
      exact = search.value = link.dataset.find;
      filter();
    });
    filter();
    return h('section', { id: 'log' }, h('h2', {}, 'Log of the worker'),
      strays.length ? h('div', { class: 'strays' }, h('h3', {}, `${plural(strays.length, 'line')} that no logger wrote`), h('pre', {}, strays.join('\n'))) : '',
      items.length ? [h('div', { class: 'filter' }, h('label', {}, 'level ', level), h('label', {}, 'text ', search), shown),
        h('p', { class: 'hint' }, Object.entries(shared).map(([key, value]) => `${key}=${value} `)),
        h('ol', { id: 'lines', tabindex: 0, 'aria-label': 'log lines' }, items)] : h('p', { class: 'hint' }, 'The worker logged nothing.'));
  };

  const LEGEND = { cut: 'segment fills', 'sts dubbed': 'at STS: sent to processed', 'sts fallback': 'at STS: in vain', 'air dubbed': 'on air, dubbed', 'air fallback': 'on air, fallback', 'air original': 'on air, original as intended', queued: 'acknowledged (queued)', applied: 'applied', late: 'answered too late', stall: 'stall', faster: 'winning back latency' };
  const run = () => {
    const { part, timeline } = data;
    const facts = [['run at', part.began_ms ? when(part.began_ms) : '–'], ['took', span(part.took_s * 1e3)], ['media server', part.media_server], ...part.facts, ...part.tools];
    return [h('header', {}, h('p', { class: 'kicker' }, h('a', { href: '../index.html' }, 'All scenarios'), ` · ${part.scenario}`), h('h1', {}, data.name), h('p', {}, part.about)),
      verdict(part), tiles(data),
      h('dl', { class: 'about' }, facts.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value)))),
      h('nav', { 'aria-label': 'Artifacts' }, h('ul', { class: 'files' }, data.files.map(([name, bytes]) => h('li', {}, h('a', { href: href(name) }, name), ' ', h('span', {}, size(bytes)))))),
      h('main', {},
        h('section', { id: 'timeline' }, h('h2', {}, 'Timeline'), h('p', { class: 'hint' }, timeline.axis.zero ? `0 s is when ${timeline.axis.zero}. Point at anything for its story.` : 'No event of this run has a time.'),
          h('div', { class: 'chart' }, chart(data)),
          h('ul', { class: 'legend' }, Object.entries(LEGEND).map(([cls, text]) => h('li', {}, s('svg', { viewBox: '0 0 14 12', 'aria-hidden': 'true' }, s('rect', { x: 1, y: 2, width: 12, height: 8, class: cls })), text)))),
        film(data), fragments(timeline.rows), counts(data.counts), log(data),
        data.metrics.length ? section('Metrics at the end', h('details', {}, h('summary', {}, plural(data.metrics.length, 'series').replace('seriess', 'series')),
          rows(['series', 'value'], data.metrics.map(([name, value]) => h('tr', {}, h('td', { class: 'id' }, name), h('td', { class: 'n' }, value)))))) : '')];
  };

  const index = () => {
    const failed = data.runs.filter((it) => it.verdict === 'failed');
    const state = failed.length ? 'failed' : data.runs.length ? 'passed' : 'unknown';
    return [h('header', {}, h('p', { class: 'kicker' }, 'End-to-end suite'), h('h1', {}, 'All scenarios')),
      h('section', { class: `verdict ${state}` }, h('h2', {}, failed.length ? `${failed.length} of ${plural(data.runs.length, 'run')} failed` : `${plural(data.runs.length, 'run')}, none failed`),
        failed.map((it) => h('p', { class: 'what' }, h('a', { href: href(it.page) }, it.name), `: ${it.failures[0]?.what ?? ''}`.split('\n')[0]))),
      h('main', {}, section('Runs', rows(['scenario', 'result', 'took', 'segments', 'dubbed', 'fallback', 'media server', 'run at', 'reason'], data.runs.map((it) => h('tr', {},
        h('td', {}, h('a', { href: href(it.page) }, it.name)), h('td', {}, h('span', { class: `badge ${it.verdict}` }, it.verdict)), h('td', { class: 'n' }, span(it.took_s * 1e3)),
        [it.numbers.segments, it.numbers.dubbed, Object.values(it.numbers.fallback).reduce((a, b) => a + b, 0)].map((value) => h('td', { class: 'n' }, value)),
        h('td', {}, it.media_server), h('td', {}, it.began_ms ? when(it.began_ms) : '–'), h('td', { class: 'why' }, (it.failures[0]?.what ?? it.skipped ?? '').split('\n')[0]))))))];
  };

  document.body.append(...(data.runs ? index() : run()));
  // What the address names was not there when the page came.
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
})();
