// Sphinx marks what was searched for and stumbles over the titles of furo's icons
document.querySelectorAll('svg title').forEach(o => o.classList.add('nohighlight'))
