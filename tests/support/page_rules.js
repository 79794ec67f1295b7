// Returns what breaks a rule of legibility inside *root*, an output in a page; [] if nothing does.
// Rules: no text under *smallest* pixels; text against the ground it is drawn on has a contrast of
// 4.5, a sign alone 3 (WCAG 2.2), and it has one colour wherever it stands, so that no meaning is in
// the colour alone; nothing is wider than the output unless it can be scrolled; each picture is
// loaded and has a text; each heading of a table says what it heads.
(root, smallest) => {
  const found = [];
  const quote = text => JSON.stringify(text.trim().slice(0, 40));
  const parse = color => {
    const parts = color.match(/[\d.]+/g).map(Number);
    return { rgb: parts.slice(0, 3), alpha: parts[3] ?? 1 };
  };
  const over = (top, bottom, alpha) => top.map((c, n) => c * alpha + bottom[n] * (1 - alpha));
  const ground = element => {
    if (!element) return [255, 255, 255];
    const { rgb, alpha } = parse(getComputedStyle(element).backgroundColor);
    return alpha === 1 ? rgb : over(rgb, ground(element.parentElement), alpha);
  };
  const luminance = rgb => {
    const [r, g, b] = rgb.map(c => c / 255)
      .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const isScrolled = element => {
    for (let at = element; at && at !== root; at = at.parentElement)
      if (/auto|scroll/.test(getComputedStyle(at).overflowX)) return true;
    return false;
  };

  const colors = {};  // of each sign
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    if (parseFloat(style.fontSize) < smallest)
      found.push(`${quote(node.data)} has ${style.fontSize}`);
    const behind = ground(element), { rgb, alpha } = parse(style.color);
    const ratio = contrast(over(rgb, behind, alpha), behind);
    const isSign = !/[\p{L}\p{N}]/u.test(node.data);
    const least = isSign ? 3 : 4.5;
    if (isSign && element.style.color) {
      const sign = node.data.trim();
      if ((colors[sign] ??= style.color) !== style.color)
        found.push(`${sign} has two colours: ${colors[sign]} and ${style.color}`);
    }
    if (ratio < least)
      found.push(`${quote(node.data)} has a contrast of ${ratio.toFixed(2)}, not ${least}`);
  }
  const edge = root.getBoundingClientRect().right + 1;
  for (const element of root.querySelectorAll('*')) {
    if (element.getBoundingClientRect().right <= edge) continue;
    if (!isScrolled(element)) found.push(`<${element.localName}> is wider than the output`);
  }
  for (const image of root.querySelectorAll('img')) {
    const what = `<img ${quote(image.alt)}>`;
    if (!image.complete || !image.naturalWidth) found.push(`${what} is not loaded`);
    if (image.src.startsWith('data:image/svg') && !image.alt.trim() && !image.ariaHidden)
      found.push(`${what} has no text`);
    if (!image.src.startsWith('data:image/svg+xml;base64,')) continue;
    const svg = new DOMParser().parseFromString(
      new TextDecoder().decode(Uint8Array.from(atob(image.src.split(',')[1]), c => c.charCodeAt(0))),
      'image/svg+xml');
    const scale = image.getBoundingClientRect().width / image.naturalWidth;
    for (const text of svg.querySelectorAll('text')) {
      const size = parseFloat(text.getAttribute('font-size')) * scale;
      if (!(size >= smallest - 0.01)) found.push(`${quote(text.textContent)} has ${size} px`);
    }
  }
  for (const head of root.querySelectorAll('th'))
    if (head.textContent.trim() && !head.scope)
      found.push(`the heading ${quote(head.textContent)} has no scope`);
  return found;
}
