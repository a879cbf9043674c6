// Visible texts whose contrast is below 4.5 (3 where they are large), as WCAG 2 computes it.
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const read = (color) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255]; };
const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
const light = (rgb) => { const [r, g, b] = rgb.map((v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
  return .2126 * r + .7152 * g + .0722 * b; };
const ground = (element) => { const layers = [];
  for (let e = element; e; e = e.parentElement) { const c = read(getComputedStyle(e).backgroundColor); layers.push(c); if (c[3] === 1) break; }
  return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]); };
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || element.closest('button:disabled, option, script, style, [aria-hidden=true]')) continue;
  if (!element.checkVisibility({visibilityProperty: true, opacityProperty: true}) || element.getBoundingClientRect().width < 2) continue;
  const style = getComputedStyle(element), below = ground(element);
  const ink = over(read(element instanceof SVGElement ? getComputedStyle(element).fill : style.color), below);
  const [a, b] = [light(ink), light(below)].sort((x, y) => y - x);
  const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.6 && style.fontWeight >= 700);
  const contrast = (a + .05) / (b + .05);
  if (contrast < (large ? 3 : 4.5)) found.push([walker.currentNode.textContent.trim().slice(0, 40), +contrast.toFixed(2)]);
}
return found;
