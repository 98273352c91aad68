//! The description of the API (OpenAPI 3.1), built beside the routes: [`Endpoint`] describes one, and gives it away only
//! together with its handler, so that none is described that is not there, or there and not described.
//!
//! The shapes of records are in [`schema`].

pub(crate) mod schema;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::routing::{MethodRouter, get};
use bytes::Bytes;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, PathsBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required, ResponseBuilder,
    Schema,
};
use utoipa_axum::router::UtoipaMethodRouter;

use crate::problem::{PROBLEM_JSON, ProblemKind};

const TOKEN: &str = "token";

/// The document without any path: what it is called, the problem schema, and how writers show who they are.
pub(crate) fn document() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Alexandria")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("The library that this node or bridge holds: its catalogue, its content, and what changes."))
        .license(Some(utoipa::openapi::LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build()))
        .build();
    let token = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let components = schema::components()
        .into_iter()
        .fold(ComponentsBuilder::new(), |components, (name, schema)| components.schema(name, schema));
    OpenApiBuilder::new().info(info).components(Some(components.security_scheme(TOKEN, token).build())).build()
}

/// The route that serves the document at `/openapi.json`. A host merges the descriptions of its own routes first.
pub fn openapi_route<S: Clone + Send + Sync + 'static>(document: &OpenApi) -> Router<S> {
    let json = Bytes::from(serde_json::to_vec(document).expect("a description has a form in JSON"));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    let handler = move || std::future::ready((headers, json));
    Router::new().route("/openapi.json", get(handler)).method_not_allowed_fallback(crate::problem::method_not_allowed)
}

/// The description of one endpoint in the making.
pub(crate) struct Endpoint {
    method: HttpMethod,
    path: String,
    operation: OperationBuilder,
    problems: Vec<ProblemKind>,
}

impl Endpoint {
    /// An endpoint that may fail as all do.
    pub(crate) fn new(method: HttpMethod, path: impl Into<String>, id: impl Into<String>, summary: &str) -> Self {
        Self {
            method,
            path: path.into(),
            operation: OperationBuilder::new().operation_id(Some(id)).summary(Some(summary)),
            problems: vec![ProblemKind::Internal, ProblemKind::Busy],
        }
    }

    /// Groups it with others.
    pub(crate) fn tag(mut self, tag: &str) -> Self {
        self.operation = self.operation.tag(tag);
        self
    }

    /// Says more.
    pub(crate) fn description(mut self, description: &str) -> Self {
        self.operation = self.operation.description(Some(description));
        self
    }

    /// Takes a part of the path.
    pub(crate) fn path_parameter(self, name: &str, schema: impl Into<RefOr<Schema>>, description: &str) -> Self {
        self.parameter(ParameterIn::Path, Required::True, name, schema, description)
            .problems(&[ProblemKind::InvalidPath, ProblemKind::NotFound])
    }

    /// Takes a query parameter that may be left out.
    pub(crate) fn query(self, name: &str, schema: impl Into<RefOr<Schema>>, description: &str) -> Self {
        self.parameter(ParameterIn::Query, Required::False, name, schema, description)
            .problems(&[ProblemKind::InvalidQuery])
    }

    /// Takes a query parameter that must be given.
    pub(crate) fn required_query(self, name: &str, schema: impl Into<RefOr<Schema>>, description: &str) -> Self {
        self.parameter(ParameterIn::Query, Required::True, name, schema, description)
            .problems(&[ProblemKind::InvalidQuery])
    }

    /// Takes a header that may be left out.
    pub(crate) fn header(self, name: &str, schema: impl Into<RefOr<Schema>>, description: &str) -> Self {
        self.parameter(ParameterIn::Header, Required::False, name, schema, description)
            .problems(&[ProblemKind::InvalidHeader])
    }

    /// Takes `If-Match` and `If-None-Match`.
    pub(crate) fn conditional(self) -> Self {
        self.header("If-Match", schema::text(), "Go on only if the version is one of these")
            .header("If-None-Match", schema::text(), "Go on only if the version is none of these")
            .problems(&[ProblemKind::Stale])
    }

    /// Takes a JSON body.
    pub(crate) fn json_body(mut self, media_types: &[&str], schema_name: &str) -> Self {
        let mut body = RequestBodyBuilder::new().required(Some(Required::True));
        for media_type in media_types {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema_name))).build();
            body = body.content(*media_type, content);
        }
        self.operation = self.operation.request_body(Some(body.build()));
        self.problems(&[
            ProblemKind::InvalidBody,
            ProblemKind::InvalidField,
            ProblemKind::TooLarge,
            ProblemKind::UnsupportedMediaType,
        ])
    }

    /// Takes any bytes.
    pub(crate) fn bytes_body(mut self) -> Self {
        let content = ContentBuilder::new().schema(Some(schema::bytes())).build();
        let body = RequestBodyBuilder::new()
            .description(Some("The content, of any media type"))
            .required(Some(Required::True))
            .content("application/octet-stream", content);
        self.operation = self.operation.request_body(Some(body.build()));
        self.problems(&[ProblemKind::InvalidBody, ProblemKind::TooLarge])
    }

    /// May answer so, with JSON of this schema.
    pub(crate) fn answers_json(
        self,
        status: StatusCode,
        description: &str,
        schema_name: &str,
        headers: &[&str],
    ) -> Self {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema_name))).build();
        let response = ResponseBuilder::new().description(description).content("application/json", content);
        self.answers(status, response, headers)
    }

    /// May answer so, without a body.
    pub(crate) fn answers_empty(self, status: StatusCode, description: &str, headers: &[&str]) -> Self {
        self.answers(status, ResponseBuilder::new().description(description), headers)
    }

    /// May answer so.
    pub(crate) fn answers(mut self, status: StatusCode, mut response: ResponseBuilder, headers: &[&str]) -> Self {
        for name in headers {
            response = response.header(*name, HeaderBuilder::new().schema(Some(schema::text())).build());
        }
        self.operation = self.operation.response(status.as_str(), response.build());
        self
    }

    /// Creates a record of this path, which these other endpoints take the id of.
    pub(crate) fn creates(self, description: &str, schema_name: &str, operations: &[String]) -> Self {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema_name))).build();
        let mut response = ResponseBuilder::new().description(description).content("application/json", content);
        for operation in operations {
            let link = LinkBuilder::new().operation_id(operation).parameter("id", "$response.body#/id").build();
            response = response.link(operation, link);
        }
        self.answers(StatusCode::CREATED, response, &["Location", "ETag"])
    }

    /// May be refused so.
    pub(crate) fn problems(mut self, kinds: &[ProblemKind]) -> Self {
        self.problems.extend(kinds);
        self
    }

    /// Changes something, so that the host's guard is asked first.
    pub(crate) fn guarded(mut self) -> Self {
        self.operation = self
            .operation
            .security(SecurityRequirement::default())
            .security(SecurityRequirement::new(TOKEN, Vec::<String>::new()));
        self.problems(&[ProblemKind::Unauthenticated, ProblemKind::Forbidden, ProblemKind::ReadOnly, ProblemKind::Full])
    }

    /// The endpoint with its handler.
    pub(crate) fn on<S>(self, handler: MethodRouter<S>) -> UtoipaMethodRouter<S> {
        let mut kinds = self.problems;
        kinds.sort_by_key(|kind| (kind.status(), kind.uri()));
        kinds.dedup();
        let mut operation = self.operation;
        for same_status in kinds.chunk_by(|a, b| a.status() == b.status()) {
            let types: Vec<_> = same_status.iter().map(|kind| format!("{} (`{}`)", kind.title(), kind.uri())).collect();
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            let response = ResponseBuilder::new().description(types.join("; ")).content(PROBLEM_JSON, content);
            operation = operation.response(same_status[0].status().as_str(), response.build());
        }
        let paths = PathsBuilder::new().path(self.path, PathItem::new(self.method, operation));
        (Vec::new(), paths.build(), handler)
    }

    fn parameter(
        mut self,
        place: ParameterIn,
        required: Required,
        name: &str,
        schema: impl Into<RefOr<Schema>>,
        description: &str,
    ) -> Self {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(place)
            .required(required)
            .description(Some(description))
            .schema(Some(schema));
        self.operation = self.operation.parameter(parameter);
        self
    }
}
