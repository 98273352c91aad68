//! Who belongs to what: the lists that hang under a record, and the links between records.

use alexandria_sync::domain::{Author, Category, Collection, Media, Typed};
use alexandria_sync::id::{BucketId, RecordId};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::Api;
use crate::catalogue::{Catalogue, Link, LinkedTo, Relation};
use crate::extract::{Path, PathPair, Query};
use crate::problem::Problem;
use crate::resource::list::{Confines, ListParameters, page};
use crate::resource::{Resource, find};

/// A list that hangs under a record, such as the media of an author.
pub(crate) trait Shelf: 'static {
    /// What it hangs under.
    type Owner: Resource;
    /// What it lists.
    type Listed: Resource;
    /// What confines the list that hangs under this owner.
    fn confines(owner: RecordId) -> Confines;
}

/// A list that links fill. The owner may be either end.
pub(crate) trait Linked: Shelf {
    /// The links that put a record on it.
    const RELATION: Relation;
}

macro_rules! linked {
    ($( $(#[$doc:meta])* $name:ident = $listed:ident of $owner:ident by $relation:ident; )+) => {
        $(
            $(#[$doc])*
            pub(crate) struct $name;

            impl Shelf for $name {
                type Owner = $owner;
                type Listed = $listed;

                fn confines(owner: RecordId) -> Confines {
                    Confines { bucket: None, linked_to: Some(LinkedTo { relation: Self::RELATION, id: owner }) }
                }
            }

            impl Linked for $name {
                const RELATION: Relation = Relation::$relation;
            }
        )+
    };
}

linked! {
    /// Who made a medium.
    AuthorsOfMedia = Author of Media by MediaAuthor;
    /// What a medium is about.
    CategoriesOfMedia = Category of Media by MediaCategory;
    /// What an author made.
    MediaOfAuthor = Media of Author by MediaAuthor;
    /// What an author writes about.
    CategoriesOfAuthor = Category of Author by AuthorCategory;
    /// What is about a subject.
    MediaOfCategory = Media of Category by MediaCategory;
    /// Who writes about a subject.
    AuthorsOfCategory = Author of Category by AuthorCategory;
}

/// What lies in a collection.
pub(crate) struct MediaOfCollection;

impl Shelf for MediaOfCollection {
    type Owner = Collection;
    type Listed = Media;

    fn confines(owner: RecordId) -> Confines {
        Confines { bucket: Some(BucketId::Collection(owner)), linked_to: None }
    }
}

/// `GET /v1/{owner}/{id}/{listed}`.
pub(crate) async fn list<S: Shelf, C: Catalogue>(
    State(api): State<Api<C>>,
    Path(id): Path<RecordId>,
    Query(parameters): Query<ListParameters>,
) -> Result<Response, Problem> {
    let owner = find::<S::Owner, C>(&api.catalogue, id).await?;
    let hidden = S::Owner::from_record(&owner.record).is_none_or(|owner| owner.is_disabled());
    if hidden && !parameters.show_disabled {
        return Err(Problem::not_found(S::Owner::NAME, id));
    }
    page::<S::Listed, C>(&api.catalogue, parameters, S::confines(id)).await
}

/// `PUT /v1/{owner}/{id}/{listed}/{other}`: puts a record on a shelf; the owner is the left end of the link.
pub(crate) async fn link<S: Linked, C: Catalogue>(
    State(api): State<Api<C>>,
    PathPair(id, other): PathPair<RecordId, RecordId>,
) -> Result<StatusCode, Problem> {
    set::<S, C>(&api.catalogue, id, other, true).await
}

/// `DELETE /v1/{owner}/{id}/{listed}/{other}`: takes it off.
pub(crate) async fn unlink<S: Linked, C: Catalogue>(
    State(api): State<Api<C>>,
    PathPair(id, other): PathPair<RecordId, RecordId>,
) -> Result<StatusCode, Problem> {
    set::<S, C>(&api.catalogue, id, other, false).await
}

async fn set<S: Linked, C: Catalogue>(
    catalogue: &C,
    left: RecordId,
    right: RecordId,
    linked: bool,
) -> Result<StatusCode, Problem> {
    let owner = find::<S::Owner, C>(catalogue, left).await?;
    find::<S::Listed, C>(catalogue, right).await?;
    // A link lies where its owner does: the medium's collection, or the catalogue.
    let link = Link { relation: S::RELATION, bucket: owner.record.key.bucket, left, right };
    catalogue.set_link(link, linked).await?;
    Ok(StatusCode::NO_CONTENT)
}
