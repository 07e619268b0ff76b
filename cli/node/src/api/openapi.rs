//! The OpenAPI document, from the table of routes and the schemas beside it.

use serde_json::{Map, Value, json};

use super::answer::{Answer, ok};
use super::routes::{PREFIXES, Route, Shape, Who, table};
use crate::error::ApiError;

/// Schemas of what travels as JSON, kept by hand; a test compares their fields with the types'.
const SCHEMAS: &str = include_str!("schemas.json");

pub(super) async fn document() -> Answer {
    let schemas: Value = serde_json::from_str(SCHEMAS).map_err(|e| ApiError::internal("read the API's schemas", e))?;
    let mut paths = Map::new();
    for route in table() {
        for prefix in PREFIXES {
            let path = paths.entry(format!("{prefix}{}", route.path)).or_insert_with(|| json!({}));
            path[route.method.as_str().to_ascii_lowercase()] = operation(&route, prefix);
        }
    }
    ok(&json!({
        "openapi": "3.1.0",
        "info": {
            "title": "form node",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Each route is there under /api/v1 and under /v1; the signed path is always the one under /api/v1.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "signature": {
                    "type": "apiKey", "in": "header", "name": "X-Signature",
                    "description": "r and s of the signature over the SHA-256 of X-Message (hex); X-Recovery-Id is 0 or 1. \
                        All three are needed.",
                },
            },
        },
    }))
}

fn operation(route: &Route, prefix: &str) -> Value {
    let mut operation = json!({
        "summary": route.summary,
        "operationId": operation_id(route, prefix),
        "responses": responses(route),
    });
    if let Some(name) = route.path.split(['{', '}']).nth(1) {
        operation["parameters"] =
            json!([{ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }]);
    }
    if let Some(body) = route.body {
        operation["requestBody"] = json!({ "required": true, "content": content(&reference(body)) });
    }
    let needs = match route.who {
        Who::Anyone => return operation,
        Who::AnyKey => "any key".to_owned(),
        Who::AtLeast(level) => format!("level {level} on the instance"),
    };
    operation["security"] = json!([{ "signature": [] }]);
    operation["description"] = json!(format!("Signed; needs {needs}."));
    operation
}

fn operation_id(route: &Route, prefix: &str) -> String {
    let name = format!("{} {prefix}{}", route.method.as_str().to_ascii_lowercase(), route.path);
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    words.collect::<Vec<_>>().join("_")
}

fn responses(route: &Route) -> Value {
    let (status, shape) = route.answer;
    let described = match shape {
        Shape::One(name) => json!({ "description": "Done", "content": content(&reference(name)) }),
        Shape::Many(name) => {
            let schema = json!({ "type": "array", "items": reference(name) });
            json!({ "description": "All of them", "content": content(&schema) })
        }
        Shape::Object => json!({ "description": "Done", "content": content(&json!({ "type": "object" })) }),
        Shape::Events(name) => json!({
            "description": "An event `progress` for each, its data as this schema",
            "content": { "text/event-stream": { "schema": reference(name) } },
        }),
        Shape::Stream => json!({ "description": "The connection is the stream from here on" }),
    };
    let mut responses = Map::new();
    responses.insert(status.to_string(), described);
    let error = json!({ "description": "What went wrong", "content": content(&reference("ApiError")) });
    responses.insert("default".to_owned(), error);
    Value::Object(responses)
}

fn content(schema: &Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}
