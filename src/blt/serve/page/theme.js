// Light or dark: as the system has it, until the button says otherwise. Not a module, so that it
// runs before anything is drawn.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => localStorage.getItem("blt-theme");
  const isDark = () => (chosen() ?? (system.matches ? "dark" : "light")) === "dark";

  function apply() {
    document.documentElement.dataset.theme = chosen() ?? "system";
    const button = document.getElementById("theme");
    if (button) button.textContent = isDark() ? "Switch to light" : "Switch to dark";
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
