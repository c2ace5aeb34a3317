//! Protocol buffers' text format, as far as the cases use it.

/// The fields of a message, in their order.
pub(super) type Message = Vec<(String, Field)>;

#[derive(Debug, Clone)]
pub(super) enum Field {
    Message(Message),
    Text(Vec<u8>),
    /// A number, a boolean, or the name of an enum's value.
    Word(String),
}

pub(super) fn parse(text: &str) -> Message {
    let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
    reader.message()
}

/// The first field of a name.
pub(super) fn get<'m>(message: &'m Message, name: &str) -> Option<&'m Field> {
    message.iter().find(|(known, _)| known == name).map(|(_, field)| field)
}

/// The messages of a repeated field.
pub(super) fn all<'m>(message: &'m Message, name: &'m str) -> impl Iterator<Item = &'m Message> {
    message.iter().filter_map(move |(known, field)| match field {
        Field::Message(inner) if known == name => Some(inner),
        _ => None,
    })
}

pub(super) fn text(message: &Message, name: &str) -> String {
    match get(message, name) {
        Some(Field::Text(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        Some(Field::Word(word)) => word.clone(),
        _ => String::new(),
    }
}

struct Reader<'t> {
    bytes: &'t [u8],
    at: usize,
}

impl Reader<'_> {
    fn skip(&mut self) {
        while let Some(byte) = self.bytes.get(self.at) {
            match byte {
                b'#' => {
                    while self.bytes.get(self.at).is_some_and(|b| *b != b'\n') {
                        self.at += 1
                    }
                }
                b if b.is_ascii_whitespace() || *b == b',' || *b == b';' => self.at += 1,
                _ => return,
            }
        }
    }

    fn peek(&mut self) -> u8 {
        self.skip();
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn take_if(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.at += usize::from(found);
        found
    }

    fn message(&mut self) -> Message {
        let mut fields = Message::new();
        loop {
            match self.peek() {
                0 => return fields,
                b'}' | b'>' => {
                    self.at += 1;
                    return fields;
                }
                _ => {}
            }
            let name = self.name();
            let colon = self.take_if(b':');
            if self.take_if(b'[') {
                while !self.take_if(b']') {
                    let value = self.value();
                    fields.push((name.clone(), value));
                }
                continue;
            }
            assert!(colon || matches!(self.peek(), b'{' | b'<'), "a value after {name}");
            let value = self.value();
            fields.push((name, value));
        }
    }

    /// A field's name; that of an extension or a packed message stands in brackets.
    fn name(&mut self) -> String {
        if self.take_if(b'[') {
            let start = self.at;
            while self.bytes[self.at] != b']' {
                self.at += 1;
            }
            self.at += 1;
            return String::from_utf8_lossy(&self.bytes[start..self.at - 1]).into_owned();
        }
        self.word()
    }

    fn word(&mut self) -> String {
        self.skip();
        let start = self.at;
        let within = |b: &u8| b.is_ascii_alphanumeric() || b"_.-+".contains(b);
        while self.bytes.get(self.at).is_some_and(within) {
            self.at += 1;
        }
        assert!(self.at > start, "a word at byte {start}");
        String::from_utf8_lossy(&self.bytes[start..self.at]).into_owned()
    }

    fn value(&mut self) -> Field {
        match self.peek() {
            b'{' | b'<' => {
                self.at += 1;
                Field::Message(self.message())
            }
            b'"' | b'\'' => {
                let mut all = Vec::new();
                while matches!(self.peek(), b'"' | b'\'') {
                    self.quoted(&mut all);
                }
                Field::Text(all)
            }
            _ => Field::Word(self.word()),
        }
    }

    fn quoted(&mut self, out: &mut Vec<u8>) {
        let quote = self.bytes[self.at];
        self.at += 1;
        while self.bytes[self.at] != quote {
            let byte = self.bytes[self.at];
            self.at += 1;
            match byte {
                b'\\' => self.escape(out),
                byte => out.push(byte),
            }
        }
        self.at += 1;
    }

    fn escape(&mut self, out: &mut Vec<u8>) {
        let byte = self.bytes[self.at];
        self.at += 1;
        match byte {
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'r' => out.push(b'\r'),
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'v' => out.push(11),
            b'x' | b'X' => out.push(self.digits(16, 2) as u8),
            b'u' => self.character(4, out),
            b'U' => self.character(8, out),
            b'0'..=b'7' => {
                self.at -= 1;
                out.push(self.digits(8, 3) as u8);
            }
            other => out.push(other),
        }
    }

    fn digits(&mut self, radix: u32, most: usize) -> u32 {
        let mut number = 0;
        for _ in 0..most {
            let digit = self.bytes.get(self.at).and_then(|b| char::from(*b).to_digit(radix));
            let Some(digit) = digit else { break };
            number = number * radix + digit;
            self.at += 1;
        }
        number
    }

    fn character(&mut self, digits: usize, out: &mut Vec<u8>) {
        let character = char::from_u32(self.digits(16, digits)).expect("a character");
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
}
