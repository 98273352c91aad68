//! The fleet as AWS IoT knows it.

use hyper::Method;
use serde_json::{Value, json};

use super::{Aws, escape};

/// IoT as a test sees it.
pub struct Iot<'a>(pub(super) &'a Aws);

impl Iot<'_> {
    /// The names of all things.
    pub async fn things(&self) -> Vec<String> {
        let answer = self.ask(Method::GET, "/things", None).await;
        strings(&answer["things"], "/thingName")
    }

    /// The ARNs of the certificates attached to a thing.
    pub async fn certificates_of(&self, thing: &str) -> Vec<String> {
        let answer = self.ask(Method::GET, &format!("/things/{}/principals", escape(thing)), None).await;
        strings(&answer["principals"], "")
    }

    /// A certificate by its id, the SHA-256 of its DER form in hex: its status, PEM and so on.
    pub async fn certificate(&self, id: &str) -> Value {
        let answer = self.ask(Method::GET, &format!("/certificates/{}", escape(id)), None).await;
        answer["certificateDescription"].clone()
    }

    /// Has the device authority sign a request (PEM). Returns the certificate in PEM.
    pub async fn sign(&self, request_pem: &str) -> String {
        let body = json!({ "certificateSigningRequest": request_pem });
        let answer = self.ask(Method::POST, "/certificates?setAsActive=true", Some(&body)).await;
        answer["certificatePem"].as_str().unwrap_or_else(|| panic!("no certificate: {answer}")).to_owned()
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let request = self.0.request("iot", method, path);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        request.ok().await.json()
    }
}

fn strings(list: &Value, pointer: &str) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(|item| Some(item.pointer(pointer)?.as_str()?.to_owned())).collect()
}
