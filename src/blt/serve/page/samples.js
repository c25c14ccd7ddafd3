/**
 * Texts to try: beginnings to go on from, characters of all kinds, and one sentence in several languages.
 * @module
 */

/** @typedef {{name: string, title: string, lang: string, dir?: "rtl", text?: string, hex?: string}} Sample
 * name: what the button says, of a language its own name; title: the same in English; dir: of what runs from right to
 * left; hex: any bytes, in place of a text */

/** The first sentence (in Tamil, clause) of the Universal Declaration of Human Rights' Article 1, with spaces in Amharic,
 * as it is written today. A model is to go on from where it is cut. */
const ARTICLE_1 = [
  { name: "አማርኛ", title: "Amharic", lang: "am",
    begins: "የሰው ልጅ ሁሉ ሲወለድ", goesOn: " ነጻና በክብርና በመብትም እኩልነት ያለው ነው።" },
  { name: "العربية", title: "Arabic", lang: "ar", dir: "rtl",
    begins: "يولد جميع الناس", goesOn: " أحرارًا متساوين في الكرامة والحقوق." },
  { name: "Հայերեն", title: "Armenian", lang: "hy",
    begins: "Բոլոր մարդիկ ծնվում են", goesOn: " ազատ ու հավասար իրենց արժանապատվությամբ ու իրավունքներով։" },
  { name: "বাংলা", title: "Bengali", lang: "bn",
    begins: "সমস্ত মানুষ স্বাধীনভাবে", goesOn: " সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে।" },
  { name: "简体中文", title: "Simplified Chinese", lang: "zh-Hans",
    begins: "人人生而自由，", goesOn: "在尊严和权利上一律平等。" },
  { name: "ქართული", title: "Georgian", lang: "ka",
    begins: "ყოველი ადამიანი იბადება", goesOn: " თავისუფალი და თანასწორი თავისი ღირსებითა და უფლებებით." },
  { name: "Ελληνικά", title: "Greek", lang: "el",
    begins: "Όλοι οι άνθρωποι γεννιούνται", goesOn: " ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα." },
  { name: "עברית", title: "Hebrew", lang: "he", dir: "rtl",
    begins: "כל בני אדם נולדו", goesOn: " בני חורין ושווים בערכם ובזכויותיהם." },
  { name: "हिन्दी", title: "Hindi", lang: "hi",
    begins: "सभी मनुष्यों को गौरव और अधिकारों के मामले में", goesOn: " जन्मजात स्वतन्त्रता और समानता प्राप्त है।" },
  { name: "日本語", title: "Japanese", lang: "ja",
    begins: "すべての人間は、生まれながらにして", goesOn: "自由であり、かつ、尊厳と権利とについて平等である。" },
  { name: "ខ្មែរ", title: "Khmer", lang: "km",
    begins: "មនុស្សទាំងអស់ កើតមកមាន", goesOn: "សេរីភាព និងសមភាព ក្នុងផ្នែកសេចក្ដីថ្លៃថ្នូរនិងសិទ្ធិ។" },
  { name: "한국어", title: "Korean", lang: "ko",
    begins: "모든 인간은 태어날 때부터", goesOn: " 자유로우며 그 존엄과 권리에 있어 동등하다." },
  { name: "Русский", title: "Russian", lang: "ru",
    begins: "Все люди рождаются", goesOn: " свободными и равными в своем достоинстве и правах." },
  { name: "தமிழ்", title: "Tamil", lang: "ta",
    begins: "மனிதப் பிறவியினர் சகலரும்", goesOn: " சுதந்திரமாகவே பிறக்கின்றனர்." },
  { name: "ไทย", title: "Thai", lang: "th",
    begins: "มนุษย์ทั้งหลายเกิดมา", goesOn: "มีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ" },
  { name: "Tiếng Việt", title: "Vietnamese", lang: "vi",
    begins: "Tất cả mọi người sinh ra", goesOn: " đều được tự do và bình đẳng về nhân phẩm và quyền." },
];

/** What the model may go on from. @type {Sample[]} */
export const BEGINNINGS = [
  { name: "English", title: "English prose", lang: "en", text: "It was late in the evening when the old man opened the door and" },
  { name: "Python", title: "The head of a Python function", lang: "en", text: 'def count_words(text: str) -> dict[str, int]:\n    """' },
  { name: "JSON", title: "The first keys of a JSON object", lang: "en", text: '{"name": "Anna", "age": 36, "languages": ["' },
  ...ARTICLE_1.map(({ begins, goesOn, ...sample }) => ({ ...sample, text: begins })),
];

/** What is shown in patches. @type {Sample[]} */
export const EXAMPLES = [
  { name: "English", title: "English prose", lang: "en", text: "The lighthouse keeper wrote every evening, and every evening the wind took the page." },
  { name: "Python", title: "A Python function", lang: "en", text: "def mean(values: list[float]) -> float:\n\treturn sum(values) / len(values)\n" },
  ...ARTICLE_1.map(({ begins, goesOn, ...sample }) => ({ ...sample, text: begins + goesOn })),
  { name: "Emoji", title: "Characters of several code points", lang: "en", text: "Family 👩‍👩‍👧‍👦, flag 🏳️‍🌈, wave 👋🏽, e\u0301 = é?" },
  { name: "Any bytes", title: "Bytes that are not all UTF-8", lang: "en", hex: "00 1B 5B 33 31 6D 0D 0A C3 A9 C3 28 FF FE E2 80 AE F0 9F 98 80 7F" },
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
