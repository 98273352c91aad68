//! Every word that the pages say of themselves, in every language they speak. Catalogue text is not here.
//!
//! `{}` stands for what [`fill`] puts in. Counts stand after a colon, so that no language needs plural forms.

use super::language::Language;

macro_rules! texts {
    ($($name:ident: $en:literal, $fr:literal, $es:literal, $ar:literal;)+) => {
        /// The words of one language.
        pub(super) struct Texts {
            $(pub(super) $name: &'static str,)+
        }

        const ENGLISH: Texts = Texts { $($name: $en,)+ };
        const FRENCH: Texts = Texts { $($name: $fr,)+ };
        const SPANISH: Texts = Texts { $($name: $es,)+ };
        const ARABIC: Texts = Texts { $($name: $ar,)+ };

        #[cfg(test)]
        impl Texts {
            fn all(&self) -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($name), self.$name),)+]
            }
        }
    };
}

texts! {
    brand: "Alexandria", "Alexandria", "Alexandria", "الإسكندرية";
    tagline: "Your library, with or without the internet.",
        "Votre bibliothèque, avec ou sans internet.",
        "Su biblioteca, con o sin internet.",
        "مكتبتك، بالإنترنت أو من دونه.";
    skip: "Skip to content", "Aller au contenu", "Ir al contenido", "انتقل إلى المحتوى";
    main_menu: "Main menu", "Menu principal", "Menú principal", "القائمة الرئيسية";
    home: "Home", "Accueil", "Inicio", "الرئيسية";
    browse: "Browse", "Parcourir", "Explorar", "تصفّح";
    authors: "Authors", "Auteurs", "Autores", "المؤلفون";
    author: "Author", "Auteur", "Autor", "المؤلف";
    categories: "Subjects", "Sujets", "Temas", "المواضيع";
    category: "Subject", "Sujet", "Tema", "الموضوع";
    collections: "Collections", "Collections", "Colecciones", "المجموعات";
    collection: "Collection", "Collection", "Colección", "المجموعة";
    search: "Search", "Rechercher", "Buscar", "بحث";
    search_label: "Search the library", "Rechercher dans la bibliothèque", "Buscar en la biblioteca", "ابحث في المكتبة";
    search_hint: "A title, a name, a subject…", "Un titre, un nom, un sujet…", "Un título, un nombre, un tema…",
        "عنوان أو اسم أو موضوع…";
    page_language: "Language of these pages", "Langue de ces pages", "Idioma de estas páginas", "لغة هذه الصفحات";
    path_here: "You are here", "Vous êtes ici", "Está aquí", "أنت هنا";

    newest: "Newest", "Nouveautés", "Novedades", "الأحدث";
    oldest: "Oldest", "Les plus anciens", "Más antiguos", "الأقدم";
    most_opened: "Most opened", "Les plus consultés", "Más consultados", "الأكثر تصفّحًا";
    recently_changed: "Recently changed", "Modifiés récemment", "Modificados recientemente", "المعدّل حديثًا";
    show_all: "Show all", "Tout afficher", "Ver todo", "عرض الكل";
    shelves: "Shelves", "Rayons", "Estantes", "الرفوف";

    books: "Books", "Livres", "Libros", "كتب";
    documents: "Documents", "Documents", "Documentos", "مستندات";
    audio: "Audio", "Audio", "Audio", "صوتيات";
    videos: "Videos", "Vidéos", "Vídeos", "فيديو";
    images: "Pictures", "Images", "Imágenes", "صور";
    book: "Book", "Livre", "Libro", "كتاب";
    document: "Document", "Document", "Documento", "مستند";
    recording: "Audio", "Audio", "Audio", "تسجيل صوتي";
    video: "Video", "Vidéo", "Vídeo", "فيديو";
    image: "Picture", "Image", "Imagen", "صورة";

    filters: "Filters", "Filtres", "Filtros", "المرشّحات";
    kind: "Kind", "Type", "Tipo", "النوع";
    language: "Language", "Langue", "Idioma", "اللغة";
    order: "Order", "Ordre", "Orden", "الترتيب";
    any: "Any", "Tous", "Cualquiera", "أيّ";
    apply: "Show", "Afficher", "Mostrar", "عرض";
    remove_filter: "Remove the filter {}", "Retirer le filtre {}", "Quitar el filtro {}", "أزل المرشّح {}";
    pages: "Pages", "Pages", "Páginas", "الصفحات";
    next_page: "Next page", "Page suivante", "Página siguiente", "الصفحة التالية";
    previous_page: "Previous page", "Page précédente", "Página anterior", "الصفحة السابقة";
    first_page: "First page", "Première page", "Primera página", "الصفحة الأولى";
    look_further: "Look further", "Chercher plus loin", "Seguir buscando", "تابع البحث";

    results_for: "Results for “{}”", "Résultats pour « {} »", "Resultados de «{}»", "نتائج البحث عن «{}»";
    media: "Media", "Médias", "Contenidos", "المواد";
    nothing_found: "Nothing was found.", "Rien n’a été trouvé.", "No se encontró nada.", "لم يُعثر على شيء.";
    nothing_found_next: "Try fewer or other words, or browse everything.",
        "Essayez avec moins de mots ou d’autres mots, ou parcourez tout.",
        "Pruebe con menos palabras u otras, o explore todo.",
        "جرّب كلمات أقل أو غيرها، أو تصفّح كل شيء.";
    nothing_so_far: "Nothing was found so far. Looked at: {}", "Rien n’a été trouvé pour l’instant. Examinés : {}",
        "No se encontró nada hasta ahora. Examinados: {}", "لم يُعثر على شيء حتى الآن. عدد ما فُحص: {}";
    nothing_so_far_next: "There is more: look further, or take a filter away.",
        "Il y en a d’autres : cherchez plus loin, ou retirez un filtre.",
        "Hay más: siga buscando o quite un filtro.",
        "هناك المزيد: تابع البحث أو أزل أحد المرشّحات.";
    search_empty: "Type what you are looking for.", "Écrivez ce que vous cherchez.", "Escriba lo que busca.",
        "اكتب ما تبحث عنه.";
    nothing_here: "There is nothing here yet.", "Il n’y a encore rien ici.", "Todavía no hay nada aquí.",
        "لا شيء هنا بعد.";
    library_empty: "This library is still empty.", "Cette bibliothèque est encore vide.",
        "Esta biblioteca todavía está vacía.", "هذه المكتبة ما زالت فارغة.";
    library_empty_next: "Whoever looks after it can add files with the command", "La personne qui s’en occupe peut ajouter des fichiers avec la commande",
        "Quien la cuida puede añadir archivos con la orden", "يستطيع القائم عليها إضافة ملفات بالأمر";

    read: "Read", "Lire", "Leer", "اقرأ";
    open: "Open", "Ouvrir", "Abrir", "افتح";
    download: "Download", "Télécharger", "Descargar", "تنزيل";
    full_size: "Full size", "Taille réelle", "Tamaño completo", "الحجم الكامل";
    cannot_play: "Your browser cannot play this. Download it instead:", "Votre navigateur ne peut pas le lire. Téléchargez-le :",
        "Su navegador no puede reproducirlo. Descárguelo:", "متصفّحك لا يستطيع تشغيله. نزّله بدلًا من ذلك:";
    details: "Details", "Détails", "Detalles", "التفاصيل";
    publisher: "Publisher", "Éditeur", "Editorial", "الناشر";
    published: "Published", "Publié", "Publicado", "تاريخ النشر";
    duration: "Length", "Durée", "Duración", "المدة";
    page_count: "Pages", "Pages", "Páginas", "عدد الصفحات";
    opened: "Opened", "Consulté", "Consultado", "مرات الفتح";
    files: "Files", "Fichiers", "Archivos", "الملفات";
    description: "Description", "Description", "Descripción", "الوصف";
    chapters: "Contents", "Sommaire", "Contenido", "المحتويات";
    page_number: "page {}", "page {}", "página {}", "صفحة {}";
    by: "by", "de", "de", "تأليف";
    not_arrived: "The content of this has not reached this library yet.",
        "Son contenu n’est pas encore arrivé dans cette bibliothèque.",
        "Su contenido todavía no ha llegado a esta biblioteca.",
        "لم يصل محتوى هذه المادة إلى هذه المكتبة بعد.";
    not_arrived_next: "It comes with one of the next connections; look again later.",
        "Il arrivera lors d’une prochaine connexion ; revenez plus tard.",
        "Llegará con una de las próximas conexiones; vuelva más tarde.",
        "سيصل مع أحد الاتصالات القادمة؛ عُد لاحقًا.";
    kept_on_demand: "The content of this collection comes when somebody opens it.",
        "Le contenu de cette collection arrive quand quelqu’un l’ouvre.",
        "El contenido de esta colección llega cuando alguien lo abre.",
        "يصل محتوى هذه المجموعة عندما يفتحه أحد.";
    not_kept: "This library does not keep this collection.",
        "Cette bibliothèque ne conserve pas cette collection.",
        "Esta biblioteca no conserva esta colección.",
        "هذه المكتبة لا تحتفظ بهذه المجموعة.";
    neighbours: "More from this collection", "Dans la même collection", "Más de esta colección", "المزيد من هذه المجموعة";
    previous: "Previous", "Précédent", "Anterior", "السابق";
    next: "Next", "Suivant", "Siguiente", "التالي";

    part_of: "Part {} of {}", "Partie {} sur {}", "Parte {} de {}", "الجزء {} من {}";
    parts: "Parts", "Parties", "Partes", "الأجزاء";
    back_to: "Back to {}", "Retour à {}", "Volver a {}", "عودة إلى {}";
    unreadable: "This cannot be shown here", "Impossible de l’afficher ici", "Esto no se puede mostrar aquí",
        "لا يمكن عرض هذا هنا";
    unreadable_next: "The file is too large, locked or damaged for reading in the browser. You can still download it.",
        "Le fichier est trop gros, verrouillé ou abîmé pour être lu dans le navigateur. Vous pouvez le télécharger.",
        "El archivo es demasiado grande, está bloqueado o dañado para leerlo en el navegador. Puede descargarlo.",
        "الملف كبير جدًا أو مقفل أو تالف فلا يُقرأ في المتصفّح. لا يزال بإمكانك تنزيله.";

    outlook: "What is still to come", "Ce qui doit encore arriver", "Lo que falta por llegar", "ما لم يصل بعد";
    to_come: "Still to come", "Encore à venir", "Falta por llegar", "لم يصل بعد";
    all_is_here: "Everything is here.", "Tout est arrivé.", "Todo ha llegado.", "وصل كل شيء.";
    on_its_own: "This library stands alone: nothing comes to it from elsewhere.",
        "Cette bibliothèque est seule : rien ne lui arrive d’ailleurs.",
        "Esta biblioteca está sola: nada le llega de otro lugar.",
        "هذه المكتبة قائمة بذاتها: لا يصلها شيء من مكان آخر.";
    entries: "catalogue entries: {}", "notices : {}", "fichas: {}", "بطاقات الفهرس: {}";
    catalogue_entries: "Catalogue entries", "Notices du catalogue", "Fichas del catálogo", "بطاقات الفهرس";
    files_of: "files: {} ({})", "fichiers : {} ({})", "archivos: {} ({})", "ملفات: {} ({})";
    asked_for: "Asked for by readers", "Demandé par des lecteurs", "Pedido por lectores", "ما طلبه القرّاء";
    software: "Software", "Logiciels", "Programas", "برمجيات";
    small_files: "Small files", "Petits fichiers", "Archivos pequeños", "ملفات صغيرة";
    other_files: "Other files", "Autres fichiers", "Otros archivos", "ملفات أخرى";
    to_send: "To be sent from here", "À envoyer d’ici", "Por enviar desde aquí", "ما سيُرسل من هنا";
    speed: "Speed", "Vitesse", "Velocidad", "السرعة";
    a_second: "{} a second", "{} par seconde", "{} por segundo", "{} في الثانية";
    done_in: "Done in about", "Fini dans environ", "Terminado en unos", "ينتهي خلال نحو";
    why_it_waits: "Why it waits", "Pourquoi cela attend", "Por qué espera", "سبب الانتظار";
    next_attempt: "Next attempt in", "Prochain essai dans", "Próximo intento en", "المحاولة التالية خلال";
    data_left: "Data left", "Données restantes", "Datos restantes", "البيانات المتبقية";
    of_it_for_files: "{}, of it for files {}", "{}, dont {} pour les fichiers", "{}, de ellos {} para archivos",
        "{}، منها للملفات {}";
    wait_hours: "The connection may not be used at this hour; it may from {} on.",
        "La connexion ne doit pas servir à cette heure ; elle le pourra à partir de {}.",
        "La conexión no se puede usar a esta hora; se podrá desde las {}.",
        "لا يُسمح باستعمال الاتصال في هذه الساعة؛ يُسمح به ابتداءً من {}.";
    wait_day: "The data for today is used up; there is more at {}.",
        "Les données du jour sont épuisées ; il y en aura de nouveau à {}.",
        "Los datos de hoy se agotaron; habrá más a las {}.",
        "نفدت بيانات اليوم؛ تتوفر من جديد في {}.";
    wait_month: "The data for this month is used up; there is more at {}.",
        "Les données du mois sont épuisées ; il y en aura de nouveau à {}.",
        "Los datos de este mes se agotaron; habrá más a las {}.",
        "نفدت بيانات هذا الشهر؛ تتوفر من جديد في {}.";
    wait_day_content: "Today’s data for files is used up; files come again at {}. The catalogue goes on.",
        "Les données du jour pour les fichiers sont épuisées ; ils reviendront à {}. Le catalogue continue.",
        "Los datos de hoy para archivos se agotaron; volverán a las {}. El catálogo sigue.",
        "نفدت بيانات اليوم المخصصة للملفات؛ تعود في {}. الفهرس مستمر.";
    wait_month_content: "This month’s data for files is used up; files come again at {}. The catalogue goes on.",
        "Les données du mois pour les fichiers sont épuisées ; ils reviendront à {}. Le catalogue continue.",
        "Los datos de este mes para archivos se agotaron; volverán a las {}. El catálogo sigue.",
        "نفدت بيانات هذا الشهر المخصصة للملفات؛ تعود في {}. الفهرس مستمر.";
    wait_no_room: "There is no room for more files here.", "Il n’y a plus de place ici pour d’autres fichiers.",
        "No hay sitio aquí para más archivos.", "لا مكان هنا لملفات أخرى.";
    wait_no_link: "There is no connection now.", "Il n’y a pas de connexion en ce moment.",
        "No hay conexión ahora.", "لا يوجد اتصال الآن.";
    wait_refused: "The other side refuses. Tell whoever looks after this library.",
        "L’autre côté refuse. Prévenez la personne qui s’occupe de cette bibliothèque.",
        "El otro lado lo rechaza. Avise a quien cuida esta biblioteca.",
        "الطرف الآخر يرفض. أخبر القائم على هذه المكتبة.";
    wait_not_asked: "It comes when whoever looks after this library asks for it.",
        "Cela arrivera quand la personne qui s’occupe de cette bibliothèque le demandera.",
        "Llegará cuando lo pida quien cuida esta biblioteca.",
        "يصل حين يطلبه القائم على هذه المكتبة.";
    at_nearby: "Nearby, at {}", "Tout près, sur {}", "Cerca, en {}", "قريبًا منك، في {}";
    fetch_now: "Fetch it now", "Le faire venir maintenant", "Traerlo ahora", "اجلبه الآن";

    missing: "This page does not exist", "Cette page n’existe pas", "Esta página no existe", "هذه الصفحة غير موجودة";
    missing_next: "What was here may have been removed, or the address is not right. Search for it, or start from the home page.",
        "Ce qui était ici a peut-être été retiré, ou l’adresse n’est pas juste. Cherchez-le, ou repartez de l’accueil.",
        "Lo que había aquí quizá se retiró, o la dirección no es correcta. Búsquelo o empiece desde el inicio.",
        "ربما أُزيل ما كان هنا أو أنّ العنوان غير صحيح. ابحث عنه أو ابدأ من الصفحة الرئيسية.";
    bad_link: "This link is not valid", "Ce lien n’est pas valable", "Este enlace no es válido", "هذا الرابط غير صالح";
    bad_link_next: "Part of the address is wrong. Start again from the home page, or search.",
        "Une partie de l’adresse est fausse. Repartez de l’accueil, ou cherchez.",
        "Parte de la dirección es incorrecta. Empiece de nuevo desde el inicio o busque.",
        "جزء من العنوان خاطئ. ابدأ من الصفحة الرئيسية أو ابحث.";
    busy: "The library is busy", "La bibliothèque est occupée", "La biblioteca está ocupada", "المكتبة مشغولة";
    busy_next: "Too many are reading at once, or it is restarting. Try again in a moment.",
        "Trop de lecteurs à la fois, ou elle redémarre. Réessayez dans un instant.",
        "Hay demasiados lectores a la vez, o se está reiniciando. Inténtelo de nuevo en un momento.",
        "القرّاء كثيرون الآن أو أنها تعيد التشغيل. حاول مجددًا بعد قليل.";
    failed: "Something went wrong", "Une erreur s’est produite", "Algo salió mal", "حدث خطأ ما";
    failed_next: "It is not your fault. Try again; if it stays so, tell whoever looks after this library.",
        "Ce n’est pas votre faute. Réessayez ; si cela persiste, prévenez la personne qui s’occupe de cette bibliothèque.",
        "No es culpa suya. Inténtelo de nuevo; si continúa, avise a quien cuida esta biblioteca.",
        "الخطأ ليس منك. حاول مجددًا؛ وإن استمر فأخبر القائم على هذه المكتبة.";

    bytes: "bytes", "octets", "bytes", "بايت";
    kilobytes: "KB", "Ko", "KB", "ك.ب";
    megabytes: "MB", "Mo", "MB", "م.ب";
    gigabytes: "GB", "Go", "GB", "غ.ب";
    thousands: ",", "\u{202f}", "\u{202f}", ",";
    decimal: ".", ",", ",", ".";
}

impl Language {
    /// Its words.
    pub(super) const fn texts(self) -> &'static Texts {
        match self {
            Self::English => &ENGLISH,
            Self::French => &FRENCH,
            Self::Spanish => &SPANISH,
            Self::Arabic => &ARABIC,
        }
    }
}

/// Puts each of `values` where the next `{}` stands.
pub(super) fn fill(text: &str, values: &[&str]) -> String {
    let mut filled = String::with_capacity(text.len() + values.iter().map(|value| value.len()).sum::<usize>());
    let mut values = values.iter();
    let mut pieces = text.split("{}");
    filled.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        filled.push_str(values.next().unwrap_or(&""));
        filled.push_str(piece);
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_there_in_every_language_with_the_same_gaps() {
        for language in Language::ALL {
            for ((name, text), (_, english)) in language.texts().all().into_iter().zip(ENGLISH.all()) {
                assert!(!text.is_empty(), "{name} in {language:?}");
                assert_eq!(text.matches("{}").count(), english.matches("{}").count(), "{name} in {language:?}");
            }
        }
    }

    #[test]
    fn gaps_are_filled_in_order_and_values_are_not_read_as_gaps() {
        assert_eq!(fill("{} of {}", &["{}", "2"]), "{} of 2");
        assert_eq!(fill("{}, {}", &["1"]), "1, ");
    }
}
