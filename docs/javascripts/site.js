// What the theme leaves out for readers without a pointer or a screen.
document$.subscribe(() => {
  // Wide tables and long lines of code can be scrolled by the keyboard.
  for (const wide of document.querySelectorAll(".md-typeset__scrollwrap, pre > code")) {
    const reach = () => {
      if (wide.scrollWidth > wide.clientWidth && wide.tabIndex !== 0) {
        wide.tabIndex = 0
      }
    }
    reach()
    // The theme takes this back where there is no pointer that hovers.
    new MutationObserver(reach).observe(wide, { attributeFilter: ["tabindex"] })
  }
  // The button of each block of code is in a landmark, and landmarks need names that differ.
  setTimeout(() => {
    document.querySelectorAll(".md-code__nav").forEach((nav, index) => {
      nav.setAttribute("aria-label", `Code ${index + 1}`)
    })
  })
})
