//! Names of months, as `strftime` writes them in the languages of servers.

/// Each month's names, in lower case and without a full stop. A name that two languages use for two months (`lis`, `lip`, `srp`
/// of Polish, Czech and Croatian) is left out: such a line has no time rather than a wrong one.
const MONTHS: [&[&str]; 12] = [
    &[
        "jan",
        "january",
        "januar",
        "jän",
        "jänner",
        "janv",
        "janvier",
        "ene",
        "enero",
        "gen",
        "gennaio",
        "janeiro",
        "januari",
        "sty",
        "led",
        "янв",
        "января",
        "січ",
        "oca",
        "tammi",
        "ian",
    ],
    &[
        "feb",
        "february",
        "februar",
        "févr",
        "fév",
        "février",
        "febrero",
        "febbraio",
        "fev",
        "fevereiro",
        "februari",
        "febr",
        "lut",
        "úno",
        "фев",
        "февраля",
        "лют",
        "şub",
        "helmi",
    ],
    &[
        "mar",
        "march",
        "mär",
        "märz",
        "mrz",
        "mars",
        "marzo",
        "março",
        "mrt",
        "maart",
        "márc",
        "bře",
        "мар",
        "марта",
        "бер",
        "maalis",
    ],
    &[
        "apr",
        "april",
        "avr",
        "avril",
        "abr",
        "abril",
        "aprile",
        "ápr",
        "kwi",
        "dub",
        "апр",
        "апреля",
        "кві",
        "nis",
        "huhti",
    ],
    &[
        "may", "mai", "maj", "mayo", "mag", "maggio", "maio", "mei", "máj", "kvě", "май", "мая", "тра",
        "touko",
    ],
    &[
        "jun", "june", "juni", "juin", "junio", "giu", "giugno", "junho", "jún", "cze", "čen", "čvn", "июн",
        "июня", "чер", "haz", "kesä", "iun",
    ],
    &[
        "jul", "july", "juli", "juil", "juillet", "julio", "lug", "luglio", "julho", "júl", "čec", "čvc",
        "июл", "июля", "лип", "tem", "heinä", "iul",
    ],
    &[
        "aug",
        "august",
        "août",
        "aoû",
        "ago",
        "agosto",
        "augustus",
        "sie",
        "авг",
        "августа",
        "сер",
        "ağu",
        "elo",
    ],
    &[
        "sep",
        "sept",
        "september",
        "septembre",
        "septiembre",
        "set",
        "settembre",
        "setembro",
        "szept",
        "wrz",
        "zář",
        "сен",
        "сент",
        "сентября",
        "вер",
        "eyl",
        "syys",
    ],
    &[
        "oct",
        "october",
        "okt",
        "oktober",
        "octobre",
        "octubre",
        "ott",
        "ottobre",
        "out",
        "outubro",
        "paź",
        "říj",
        "окт",
        "октября",
        "жов",
        "eki",
        "loka",
    ],
    &[
        "nov",
        "november",
        "novembre",
        "noviembre",
        "novembro",
        "noi",
        "ноя",
        "нояб",
        "ноября",
        "kas",
        "marras",
    ],
    &[
        "dec",
        "december",
        "dez",
        "dezember",
        "déc",
        "décembre",
        "dic",
        "diciembre",
        "dicembre",
        "dezembro",
        "des",
        "gru",
        "pro",
        "дек",
        "декабря",
        "гру",
        "ara",
        "joulu",
    ],
];

/// 1 to 12, of a name, or of `11月` and `11월`.
pub fn number(word: &str) -> Option<i8> {
    let word = word.trim_end_matches(['.', ',']);
    if let Some(digits) = word.strip_suffix(['月', '월']) {
        return digits.parse().ok().filter(|month| (1..=12).contains(month));
    }
    // The longest has ten letters.
    if word.len() < 3 || word.len() > 24 || !word.chars().all(char::is_alphabetic) {
        return None;
    }
    let word = word.to_lowercase();
    let month = MONTHS.iter().position(|names| names.contains(&word.as_str()))?;
    i8::try_from(month + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_of_one_month() {
        let mut names: Vec<_> = MONTHS.iter().copied().flatten().collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn months() {
        for (word, expected) in [
            ("Nov", Some(11)),
            ("nov.", Some(11)),
            ("Mai", Some(5)),
            ("März", Some(3)),
            ("déc.", Some(12)),
            ("11月", Some(11)),
            ("1월", Some(1)),
            ("13月", None),
            ("июн", Some(6)),
            ("lis", None),
            ("no", None),
            ("monitor", None),
        ] {
            assert_eq!(number(word), expected, "{word}");
        }
    }
}
