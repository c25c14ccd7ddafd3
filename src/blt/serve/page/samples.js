/**
 * Texts to try: characters of all kinds, and one sentence in several languages.
 * @module
 */

/** What the buttons put in; `hex` is any bytes. @type {{name: string, text?: string, hex?: string}[]} */
export const EXAMPLES = [
  { name: "English", text: "The lighthouse keeper wrote every evening, and every evening the wind took the page." },
  { name: "Python", text: "def mean(values: list[float]) -> float:\n\treturn sum(values) / len(values)\n" },
  { name: "Hindi", text: "नदी के किनारे एक छोटा सा गाँव है।" },
  { name: "Arabic", text: "في المساء تعود المراكب إلى الميناء." },
  { name: "Japanese", text: "朝の市場で、赤いりんごを三つ買いました。" },
  { name: "Emoji", text: "Family 👩‍👩‍👧‍👦, flag 🏳️‍🌈, wave 👋🏽, e\u0301 = é?" },
  { name: "Any bytes", hex: "00 1B 5B 33 31 6D 0D 0A C3 A9 C3 28 FF FE E2 80 AE F0 9F 98 80 7F" },
];

/** The same sentence. @type {{name: string, lang: string, text: string}[]} */
export const LANGUAGES = [
  { name: "English", lang: "en", text: "The train to the sea leaves at seven in the morning, and we are taking bread, cheese and two books." },
  { name: "German", lang: "de", text: "Der Zug ans Meer fährt um sieben Uhr morgens ab, und wir nehmen Brot, Käse und zwei Bücher mit." },
  { name: "Spanish", lang: "es", text: "El tren al mar sale a las siete de la mañana, y llevamos pan, queso y dos libros." },
  { name: "Swahili", lang: "sw", text: "Treni ya kwenda baharini inaondoka saa moja asubuhi, nasi tunachukua mkate, jibini na vitabu viwili." },
  { name: "Polish", lang: "pl", text: "Pociąg nad morze odjeżdża o siódmej rano, a my zabieramy chleb, ser i dwie książki." },
  { name: "Greek", lang: "el", text: "Το τρένο για τη θάλασσα φεύγει στις επτά το πρωί, και παίρνουμε μαζί μας ψωμί, τυρί και δύο βιβλία." },
  { name: "Russian", lang: "ru", text: "Поезд к морю отправляется в семь утра, и мы берём с собой хлеб, сыр и две книги." },
  { name: "Arabic", lang: "ar", text: "يغادر القطار المتجه إلى البحر في السابعة صباحًا، ونحن نأخذ معنا خبزًا وجبنًا وكتابين." },
  { name: "Hindi", lang: "hi", text: "समुद्र की ओर जाने वाली रेलगाड़ी सुबह सात बजे निकलती है, और हम रोटी, पनीर और दो किताबें साथ ले जा रहे हैं।" },
  { name: "Chinese", lang: "zh", text: "去海边的火车早上七点出发，我们带上面包、奶酪和两本书。" },
  { name: "Japanese", lang: "ja", text: "海へ行く列車は朝七時に出発し、私たちはパンとチーズと本を二冊持っていきます。" },
  { name: "Korean", lang: "ko", text: "바다로 가는 기차는 아침 일곱 시에 출발하고, 우리는 빵과 치즈와 책 두 권을 가져갑니다." },
];
