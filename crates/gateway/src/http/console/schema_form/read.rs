//! What fields were filled in with, as JSON.

use super::schema::range;
use super::{Bounds, Count, Errors, Field, Fields, Item, Kind, NAME_SHOWN, Read, Text};
use crate::web::error::shown;
use serde_json::{Number, Value};
use std::collections::HashSet;

impl Bounds {
    /// The number as it was written.
    fn read(&self, text: &str) -> Result<String, String> {
        let text = text.trim();
        let what = if self.integer {
            "takes a whole number"
        } else {
            "takes a number"
        };
        let number: Number = serde_json::from_str(text).map_err(|_| what.to_owned())?;
        let value = number.as_f64().unwrap_or(f64::NAN);
        if self.integer && value.fract() != 0.0 {
            return Err(what.into());
        }
        for (outside, bound, words) in [
            (
                self.least.is_some_and(|least| value < least),
                self.least,
                "must be at least",
            ),
            (
                self.above.is_some_and(|above| value <= above),
                self.above,
                "must be more than",
            ),
            (
                self.most.is_some_and(|most| value > most),
                self.most,
                "must be at most",
            ),
            (
                self.below.is_some_and(|below| value >= below),
                self.below,
                "must be less than",
            ),
        ] {
            if let (true, Some(bound)) = (outside, bound) {
                return Err(format!("{words} {bound}"));
            }
        }
        Ok(text.to_owned())
    }
}

impl Count {
    fn judge(&self, items: usize) -> Result<(), String> {
        let items = items as u64;
        let fits =
            self.least.is_none_or(|least| items >= least) && self.most.is_none_or(|most| items <= most);
        if fits {
            return Ok(());
        }
        Err(format!(
            "has {items} items; {}",
            range("items", self.least, self.most)
                .unwrap_or_default()
                .to_lowercase()
                .trim_end_matches('.')
        ))
    }
}

impl Field {
    /// What the field was filled with; an error is noted.
    fn read(&self, values: &Fields, errors: &mut Errors) -> Read {
        let text = values.raw(&self.key);
        let read = match &self.kind {
            Kind::Constant(value) => return Read::Unfilled(value.to_string()),
            Kind::Object(members) => return self.read_object(members, values, errors),
            Kind::Several(choices, count) => chosen(choices, values.all(&self.key)).and_then(|chosen| {
                if chosen.is_empty() && !self.required {
                    return Ok(None);
                }
                count.judge(chosen.len())?;
                Ok(Some(format!("[{}]", chosen.join(","))))
            }),
            Kind::Lines(item, count) => self.read_lines(text, item, count),
            _ if text.trim().is_empty() && !matches!(self.kind, Kind::Text(_)) => Ok(None),
            _ if text.is_empty() => Ok(None),
            Kind::Text(kind) => kind.read(text).map(Some),
            Kind::Number(bounds) => bounds.read(text).map(Some),
            Kind::Flag if matches!(text, "true" | "false") => Ok(Some(text.to_owned())),
            Kind::Flag => Err("takes true or false".into()),
            Kind::Choice(choices) => {
                let found = choices.iter().map(Value::to_string).find(|choice| choice == text);
                found.map(Some).ok_or_else(|| "is not one of the choices".into())
            }
            Kind::Json(_) => match serde_json::from_str::<Value>(text) {
                Ok(_) => Ok(Some(text.trim().to_owned())),
                Err(error) => Err(format!("is not JSON: {error}")),
            },
        };
        match read {
            Ok(Some(value)) => Read::Value(value),
            Ok(None) if self.required && self.nullable => Read::Unfilled("null".into()),
            Ok(None) => {
                if self.required {
                    errors.add(&self.key, self.wanted());
                }
                Read::Nothing
            }
            Err(message) => {
                errors.add(&self.key, message);
                // It was filled, so what belongs to it is wanted.
                Read::Value(String::new())
            }
        }
    }

    fn wanted(&self) -> &'static str {
        if matches!(self.kind, Kind::Text(_)) {
            "is required; an empty text can be sent with the arguments as JSON"
        } else {
            "is required"
        }
    }

    /// An optional object of which nothing was filled in is left out, whatever it would need.
    fn read_object(&self, members: &[Self], values: &Fields, errors: &mut Errors) -> Read {
        let mut own = Errors::default();
        let (members, filled) = read_members(members, values, &mut own);
        if !filled && !self.required {
            return Read::Nothing;
        }
        errors.extend(own);
        if filled {
            Read::Value(object(&members))
        } else {
            Read::Unfilled(object(&members))
        }
    }

    fn read_lines(&self, text: &str, item: &Item, count: &Count) -> Result<Option<String>, String> {
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        if lines.is_empty() && !self.required {
            return Ok(None);
        }
        count.judge(lines.len())?;
        let items = lines.iter().map(|line| match item {
            Item::Text => Ok(Value::from(*line).to_string()),
            Item::Number(bounds) => bounds
                .read(line)
                .map_err(|message| format!("{message}: {}", shown(line, NAME_SHOWN))),
        });
        let items: Vec<String> = items.collect::<Result<_, _>>()?;
        Ok(Some(format!("[{}]", items.join(","))))
    }
}

impl Text {
    fn read(&self, text: &str) -> Result<String, String> {
        let length = text.chars().count() as u64;
        if self.least.is_some_and(|least| length < least) || self.most.is_some_and(|most| length > most) {
            let wanted = range("characters", self.least, self.most).unwrap_or_default();
            return Err(format!(
                "has {length} characters; {}",
                wanted.to_lowercase().trim_end_matches('.')
            ));
        }
        Ok(Value::from(text).to_string())
    }
}

fn chosen<'v>(choices: &[Value], values: impl Iterator<Item = &'v str>) -> Result<Vec<String>, String> {
    let known: HashSet<String> = choices.iter().map(Value::to_string).collect();
    values
        .map(|value| {
            let found = known.get(value).cloned();
            found.ok_or_else(|| "is not one of the choices".to_owned())
        })
        .collect()
}

/// The members with their JSON, and whether somebody filled one in.
pub(super) fn read_members<'f>(
    fields: &'f [Field],
    values: &Fields,
    errors: &mut Errors,
) -> (Vec<(&'f str, String)>, bool) {
    let mut members = Vec::new();
    let mut filled = false;
    for field in fields {
        match field.read(values, errors) {
            Read::Value(value) => {
                filled = true;
                members.push((field.name.as_str(), value));
            }
            Read::Unfilled(value) => members.push((field.name.as_str(), value)),
            Read::Nothing => {}
        }
    }
    (members, filled)
}

/// A JSON object of these members.
pub(super) fn object(members: &[(&str, String)]) -> String {
    let members = members
        .iter()
        .map(|(name, value)| format!("{}:{value}", Value::from(*name)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}
