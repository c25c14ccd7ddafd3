// Light or dark: as the system has it, until the button says otherwise. Not a module, so that it
// runs before anything is drawn.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => localStorage.getItem("blt-theme");
  const isDark = () => (stored() ?? (system.matches ? "dark" : "light")) === "dark";

  function apply() {
    root.dataset.theme = isDark() ? "dark" : "light";
    document.getElementById("theme")?.setAttribute("aria-pressed", String(isDark()));
  }

  function toggle() {
    localStorage.setItem("blt-theme", isDark() ? "light" : "dark");
    apply();
  }

  apply();
  system.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", toggle);
    apply();
  });
})();
