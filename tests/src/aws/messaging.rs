//! SNS topics and the SQS queues that listen to them.

use std::{collections::BTreeMap, time::Duration};

use hyper::Method;
use serde_json::{Value, json};

use super::{Aws, elements, escape};
use crate::deadline::wait_for;

/// The most that SQS hands out at once.
const RECEIVE_MAX: u32 = 10;

/// SNS and SQS as a test sees them.
pub struct Messaging<'a>(pub(super) &'a Aws);

/// One message of a queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub id: String,
    pub body: String,
    /// Message attributes, their values as text.
    pub attributes: BTreeMap<String, String>,
}

impl Messaging<'_> {
    /// Returns the topic's ARN.
    pub async fn create_topic(&self, name: &str) -> String {
        let answer = self.sns(&[("Action", "CreateTopic"), ("Name", name)]).await;
        elements(&answer, "TopicArn").pop().unwrap_or_else(|| panic!("no ARN: {answer}"))
    }

    /// Returns the queue's URL.
    pub async fn create_queue(&self, name: &str) -> String {
        let answer = self.sqs("CreateQueue", &json!({ "QueueName": name })).await;
        text(&answer, "/QueueUrl")
    }

    /// A new queue that gets what is published to `topic_arn`, as it was published. Returns its URL.
    pub async fn queue_on(&self, topic_arn: &str) -> String {
        let queue_url = self.create_queue(&self.0.unique("queue")).await;
        let asked = json!({ "QueueUrl": queue_url, "AttributeNames": ["QueueArn"] });
        let queue_arn = text(&self.sqs("GetQueueAttributes", &asked).await, "/Attributes/QueueArn");
        self.sns(&[
            ("Action", "Subscribe"),
            ("TopicArn", topic_arn),
            ("Protocol", "sqs"),
            ("Endpoint", &queue_arn),
            ("Attributes.entry.1.key", "RawMessageDelivery"),
            ("Attributes.entry.1.value", "true"),
        ])
        .await;
        queue_url
    }

    /// Publishes a message with one string attribute.
    pub async fn publish(&self, topic_arn: &str, body: &str, (name, value): (&str, &str)) {
        self.sns(&[
            ("Action", "Publish"),
            ("TopicArn", topic_arn),
            ("Message", body),
            ("MessageAttributes.entry.1.Name", name),
            ("MessageAttributes.entry.1.Value.DataType", "String"),
            ("MessageAttributes.entry.1.Value.StringValue", value),
        ])
        .await;
    }

    /// Takes what the queue has, up to ten messages: they are deleted.
    pub async fn take(&self, queue_url: &str) -> Vec<Message> {
        let asked = json!({
            "QueueUrl": queue_url, "MaxNumberOfMessages": RECEIVE_MAX, "WaitTimeSeconds": 0, "MessageAttributeNames": ["All"],
        });
        let answer = self.sqs("ReceiveMessage", &asked).await;
        let mut taken = Vec::new();
        for message in answer["Messages"].as_array().into_iter().flatten() {
            let receipt = text(message, "/ReceiptHandle");
            self.sqs("DeleteMessage", &json!({ "QueueUrl": queue_url, "ReceiptHandle": receipt })).await;
            let attributes = message["MessageAttributes"].as_object().into_iter().flatten();
            taken.push(Message {
                id: text(message, "/MessageId"),
                body: text(message, "/Body"),
                attributes: attributes.map(|(name, value)| (name.clone(), text(value, "/StringValue"))).collect(),
            });
        }
        taken
    }

    /// Takes messages until one fits; returns all that were taken, the fitting one last.
    pub async fn take_until(
        &self,
        queue_url: &str,
        what: &str,
        deadline: Duration,
        mut fits: impl FnMut(&Message) -> bool,
    ) -> Vec<Message> {
        let mut taken = Vec::new();
        wait_for(what, deadline, async || {
            for message in self.take(queue_url).await {
                let is_the_one = fits(&message);
                taken.push(message);
                if is_the_one {
                    return Some(());
                }
            }
            None
        })
        .await;
        taken
    }

    async fn sns(&self, form: &[(&str, &str)]) -> String {
        let fields: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
        let request = self.0.request("sns", Method::POST, "/");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request.body(fields.join("&")).ok().await.text().to_owned()
    }

    async fn sqs(&self, action: &str, body: &Value) -> Value {
        let request = self.0.request("sqs", Method::POST, "/");
        let request = request.header("x-amz-target", format!("AmazonSQS.{action}"));
        let answer = request.header("content-type", "application/x-amz-json-1.0").body(body.to_string()).ok().await;
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }
}

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}
