// Language and theme, before anything is drawn. What is chosen is kept under the names "distillery.language" and
// "distillery.theme"; a page that may keep nothing (some browsers, file://) follows the browser.
{
  const kept = (name) => {
    try {
      return localStorage.getItem(`distillery.${name}`);
    } catch {
      return null;
    }
  };
  const page = document.documentElement;
  page.classList.add("scripted");
  if (["light", "dark"].includes(kept("theme"))) page.dataset.theme = kept("theme");
  const wished = kept("language") || (navigator.languages || [navigator.language]).find((each) => /^(en|zh)\b/i.test(each));
  page.lang = /^zh/i.test(wished || "") ? "zh-Hans" : "en";
}
