'use strict';
// Everything is readable without this: it filters the log and shows where the pointer is in time.
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);

  const lines = all('table.log tbody tr[data-level]');
  const haystack = new Map(lines.map((line) => [line, line.textContent.toLowerCase()]));
  const form = one('#filter');
  const level = one('#level');
  const search = one('#search');
  // What a link asked for is a whole word: batch=1 is not batch=10.
  let exact = '';

  const matches = (line) => {
    if (Number(line.dataset.level) < Number(level.value)) return false;
    const text = haystack.get(line);
    if (exact) return text.split(/\s+/).includes(exact);
    return search.value.toLowerCase().split(/\s+/).every((word) => text.includes(word));
  };
  const filter = () => {
    let shown = 0;
    for (const line of lines) {
      line.hidden = !matches(line);
      shown += line.hidden ? 0 : 1;
    }
    one('#shown').textContent = `${shown} of ${lines.length} lines`;
  };
  form.hidden = lines.length === 0;
  form.addEventListener('submit', (event) => event.preventDefault());
  level.addEventListener('change', filter);
  search.addEventListener('input', () => { exact = ''; filter(); });
  for (const link of all('[data-find]')) {
    link.addEventListener('click', () => {
      level.value = '0';
      exact = link.dataset.find;
      search.value = exact;
      filter();
    });
  }

  const chart = one('#chart');
  const cursor = one('#cursor');
  const { left, right, begin, end } = Object.fromEntries(
    Object.entries(chart.dataset).map(([name, value]) => [name, Number(value)]),
  );
  const point = (seconds) => {
    const inside = seconds >= begin && seconds <= end;
    cursor.setAttribute('visibility', inside ? 'visible' : 'hidden');
    if (!inside) return;
    const x = left + ((seconds - begin) / (end - begin)) * (right - left);
    cursor.setAttribute('transform', `translate(${x.toFixed(2)} 0)`);
    cursor.querySelector('text').textContent = `${seconds.toFixed(2)} s`.replace('-', '−');
  };
  const secondsAt = (event) => {
    const box = chart.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
    return begin + ((x - left) / (right - left)) * (end - begin);
  };
  chart.addEventListener('pointermove', (event) => point(secondsAt(event)));
  chart.addEventListener('pointerleave', () => cursor.setAttribute('visibility', 'hidden'));
  for (const row of all('tr[data-at]')) {
    row.addEventListener('pointerenter', () => point(Number(row.dataset.at)));
  }

  // A click beside the fragments leads to the first line of the log from that moment on.
  chart.addEventListener('click', (event) => {
    const seconds = secondsAt(event);
    if (event.target.closest('a') || seconds < begin || seconds > end) return;
    const line = lines.find((it) => !it.hidden && Number(it.dataset.at) >= seconds);
    if (!line) return;
    for (const other of all('tr.here')) other.classList.remove('here');
    line.classList.add('here');
    line.scrollIntoView({ block: 'center' });
  });
})();
