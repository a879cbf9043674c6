// The right end of whatever is visible; what scrolls by itself does not count.
const shown = {visibilityProperty: true, opacityProperty: true};
const right = [...document.querySelectorAll("body *")]
  .filter((e) => !e.closest(".scroll, pre, .overflow-menu, .visually-hidden") && e.checkVisibility(shown))
  .map((e) => e.getBoundingClientRect())
  .filter((box) => box.width > 1 && box.height > 1)
  .map((box) => box.right + scrollX);
return Math.floor(Math.max(document.documentElement.scrollWidth, ...right));
