//! The query form of label selectors, with the sentences of upstream's parser (apimachinery
//! `labels.Parse`), which clients show as they are.

use super::{LabelSelector, Operator, Requirement};

const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

pub(super) fn labels(text: &str) -> Result<LabelSelector, String> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            Token::End => return Ok(LabelSelector { requirements }),
            Token::Word(_) | Token::Symbol("!") => {}
            other => {
                return Err(format!(
                    "found '{other}', expected: !, identifier, or 'end of string'"
                ));
            }
        }
        let requirement = parser.requirement();
        requirements
            .push(requirement.map_err(|fault| format!("unable to parse requirement: {fault}"))?);
        match parser.next() {
            Token::End => return Ok(LabelSelector { requirements }),
            Token::Symbol(",") => match parser.peek() {
                Token::Word(_) | Token::Symbol("!") => {}
                other => return Err(format!("found '{other}', expected: identifier after ','")),
            },
            other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'a str),
    End,
}

impl std::fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Token::Word(text) | Token::Symbol(text) => f.write_str(text),
            Token::End => Ok(()),
        }
    }
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let symbol = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];
        let symbol = symbol.iter().find(|s| rest.starts_with(**s)).map(|s| s.len());
        let word = || rest.find(|c: char| " \t\r\n,()=!<>".contains(c)).unwrap_or(rest.len());
        let (token, after) = rest.split_at(symbol.unwrap_or_else(word));
        found.push(if symbol.is_some() { Token::Symbol(token) } else { Token::Word(token) });
        rest = after.trim_start();
    }
    found
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.peek() == Token::Symbol("!");
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(key) => key.to_owned(),
            other => return Err(format!("found '{other}', expected: identifier")),
        };
        check_key(&key)?;
        let alone = matches!(self.peek(), Token::End | Token::Symbol(","));
        if negated || alone {
            let operator = if negated { Operator::DoesNotExist } else { Operator::Exists };
            return Ok(Requirement { key, operator, values: Vec::new() });
        }
        let operator = match self.next() {
            Token::Word("in") => Operator::In,
            Token::Word("notin") => Operator::NotIn,
            Token::Symbol("=" | "==") => return self.exact(key, Operator::In),
            Token::Symbol("!=") => return self.exact(key, Operator::NotIn),
            Token::Symbol(">") => return self.exact(key, Operator::GreaterThan),
            Token::Symbol("<") => return self.exact(key, Operator::LessThan),
            other => return Err(format!("found '{other}', expected: {OPERATORS}")),
        };
        let values = self.set()?;
        checked(Requirement { key, operator, values })
    }

    fn exact(&mut self, key: String, operator: Operator) -> Result<Requirement, String> {
        let value = match self.peek() {
            Token::End | Token::Symbol(",") => "",
            Token::Word(value) => {
                self.next();
                value
            }
            other => return Err(format!("found '{other}', expected: identifier")),
        };
        checked(Requirement { key, operator, values: vec![value.to_owned()] })
    }

    fn set(&mut self) -> Result<Vec<String>, String> {
        match self.next() {
            Token::Symbol("(") => {}
            other => return Err(format!("found '{other}' expected: '('")),
        }
        match self.peek() {
            Token::Word(_) | Token::Symbol("," | ")") => {}
            other => return Err(format!("found '{other}', expected: ',', ')' or identifier")),
        }
        let mut values = vec![String::new()];
        loop {
            match self.next() {
                Token::Symbol(")") => break,
                Token::Symbol(",") => values.push(String::new()),
                Token::Word(word) => {
                    *values.last_mut().expect("never empty") = word.to_owned();
                    match self.peek() {
                        Token::Symbol("," | ")") => {}
                        other => return Err(format!("found '{other}', expected: ',' or ')'")),
                    }
                }
                other => return Err(format!("found '{other}', expected: ',', or identifier")),
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
    }
}

fn check_key(key: &str) -> Result<(), String> {
    match crate::names::qualified_name(key).first() {
        None => Ok(()),
        Some(fault) => Err(format!("key: Invalid value: {key:?}: {fault}")),
    }
}

fn checked(requirement: Requirement) -> Result<Requirement, String> {
    let key = &requirement.key;
    if matches!(requirement.operator, Operator::GreaterThan | Operator::LessThan)
        && let Some(value) = requirement.values.first().filter(|v| v.parse::<i64>().is_err())
    {
        return Err(format!(
            "values[0][{key}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
        ));
    }
    for (at, value) in requirement.values.iter().enumerate() {
        if let Some(fault) = crate::names::label_value(value).first() {
            return Err(format!("values[{at}][{key}]: Invalid value: {value:?}: {fault}"));
        }
    }
    Ok(requirement)
}

#[cfg(test)]
mod tests {
    use super::{Operator, labels};

    #[test]
    fn selectors_mean_what_they_say() {
        let parsed = labels("a==b, c in (x,y),!d ,e,f notin (),g>3").expect("a selector");
        let seen: Vec<(Operator, usize)> =
            parsed.requirements.iter().map(|r| (r.operator, r.values.len())).collect();
        use Operator::{DoesNotExist, Exists, GreaterThan, In, NotIn};
        let want = [(In, 1), (In, 2), (DoesNotExist, 0), (Exists, 0), (NotIn, 1), (GreaterThan, 1)];
        assert_eq!(seen, want);
    }

    #[test]
    fn faults_are_told_in_the_originals_words() {
        for (text, want) in [
            ("a==b=c", "found '=', expected: ',' or 'end of string'"),
            (",,", "found ',', expected: !, identifier, or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
        ] {
            assert_eq!(labels(text).expect_err(text), want);
        }
    }
}
