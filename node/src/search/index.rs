//! The tantivy index: one document for each live author, medium, category and collection.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use alexandria_sync::domain::{Author, Category, Collection, Media, Typed};
use alexandria_sync::id::{BucketId, Epoch, RecordId, Seq};
use alexandria_sync::record::{Kind, Record};
use serde::{Deserialize, Serialize};
use tantivy::collector::DocSetCollector;
use tantivy::query::{BooleanQuery, EmptyQuery, FuzzyTermQuery, Occur, PhraseQuery, Query, TermQuery};
use tantivy::schema::{FAST, Field, INDEXED, IndexRecordOption, STRING, Schema, TextFieldIndexing, TextOptions};
use tantivy::tokenizer::{AsciiFoldingFilter, TextAnalyzer, TokenStream};
use tantivy::{
    DocId, Index, IndexReader, IndexWriter, ReloadPolicy, SegmentOrdinal, TantivyDocument, TantivyError, Term,
};
use tokio::sync::{Notify, watch};

use super::words::{Word, Words, words};

/// Words of a query that count; the rest is ignored.
const QUERY_WORDS_MAX: usize = 16;
/// Records that one query finds, at most.
const MATCHES_MAX: usize = 10_000;
/// Terms of one run without spaces that count; the rest of it is ignored.
const QUERY_RUN_TERMS_MAX: usize = 32;
/// Memory for documents that are not committed yet, in bytes: the least that tantivy takes.
const WRITER_BYTES: usize = 15_000_000;
/// Changes when the schema or the analysis of text does, so that old indexes are rebuilt.
const LAYOUT: u32 = 2;
const ANALYZER: &str = "words";

/// Why the index could not do it. It can be rebuilt.
#[derive(Debug, thiserror::Error)]
#[error("the search index failed")]
pub struct SearchError(#[from] TantivyError);

/// How far the feeds are indexed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Indexed {
    layout: u32,
    /// The life of the store that counts.
    pub epoch: Epoch,
    /// The last row of each bucket that is in the index.
    pub rows: BTreeMap<String, Seq>,
}

impl Indexed {
    /// Nothing of `epoch`.
    pub fn nothing(epoch: Epoch) -> Self {
        Self { layout: LAYOUT, epoch, rows: BTreeMap::new() }
    }

    /// The last row of `bucket` that is in the index.
    pub fn row(&self, bucket: BucketId) -> Seq {
        self.rows.get(&bucket.to_string()).copied().unwrap_or_default()
    }

    /// Moves on to `row`.
    pub fn set_row(&mut self, bucket: BucketId, row: Seq) {
        self.rows.insert(bucket.to_string(), row);
    }
}

/// The index.
pub struct Search {
    index: Index,
    reader: IndexReader,
    /// `None` after a failure, until it could be opened again.
    writer: Mutex<Option<IndexWriter>>,
    /// What the last commit covered.
    committed: watch::Sender<Indexed>,
    /// Why the index does not follow the library just now, if so.
    trouble: watch::Sender<Option<String>>,
    /// Tells who follows that something else has failed.
    failed: Notify,
    fields: Fields,
}

#[derive(Clone, Copy)]
struct Fields {
    /// `kind/id`: names the document, so that a later version replaces it.
    key: Field,
    kind: Field,
    bucket: Field,
    id: Field,
    name: Field,
    description: Field,
    languages: Field,
}

impl Search {
    /// Opens the index in `dir`, or starts a new one if there is none that is whole and of `epoch`. Tells how far it is.
    ///
    /// # Errors
    ///
    /// [`SearchError`] if not even a new one can be made.
    pub fn open(dir: &Path, epoch: Epoch) -> Result<(Self, Indexed), SearchError> {
        match Self::open_whole(dir, epoch) {
            Ok(Some(opened)) => return Ok(opened),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the search index is damaged and will be rebuilt"),
        }
        if dir.exists() {
            std::fs::remove_dir_all(dir).map_err(TantivyError::from)?;
        }
        std::fs::create_dir_all(dir).map_err(TantivyError::from)?;
        let index = Index::create_in_dir(dir, schema().0)?;
        let indexed = Indexed::nothing(epoch);
        let search = Self::with_index(index, &indexed)?;
        search.commit(&indexed)?;
        Ok((search, indexed))
    }

    fn open_whole(dir: &Path, epoch: Epoch) -> Result<Option<(Self, Indexed)>, SearchError> {
        if !dir.join("meta.json").exists() {
            return Ok(None);
        }
        let index = Index::open_in_dir(dir)?;
        if index.schema() != schema().0 || !index.validate_checksum()?.is_empty() {
            return Ok(None);
        }
        let Ok(indexed) = last_commit(&index)? else { return Ok(None) };
        if indexed.layout != LAYOUT || indexed.epoch != epoch {
            return Ok(None);
        }
        Ok(Some((Self::with_index(index, &indexed)?, indexed)))
    }

    fn with_index(index: Index, indexed: &Indexed) -> Result<Self, SearchError> {
        index.tokenizers().register(ANALYZER, analyzer());
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let writer = Mutex::new(Some(new_writer(&index)?));
        let (committed, trouble) = (watch::Sender::new(indexed.clone()), watch::Sender::new(None));
        Ok(Self { index, reader, writer, committed, trouble, failed: Notify::new(), fields: schema().1 })
    }

    /// What is findable, as it goes on.
    pub fn committed(&self) -> watch::Receiver<Indexed> {
        self.committed.subscribe()
    }

    /// Why it does not follow the library just now, as that changes.
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// Notes whether it follows the library, or why not.
    pub(super) fn note_trouble(&self, trouble: Option<String>) {
        self.trouble.send_replace(trouble);
    }

    /// Resolves once forgetting has failed: then [`Self::begin_again`] is due.
    pub(super) async fn failed(&self) {
        self.failed.notified().await;
    }

    /// Goes back to the last commit after a failure, and tells how far that goes: a writer of which anything has failed is
    /// of no more use. Blocks.
    ///
    /// # Errors
    ///
    /// [`SearchError`] if the disk still fails; it can be tried again.
    pub(super) fn begin_again(&self) -> Result<Indexed, SearchError> {
        let mut writer = self.writing();
        // Lets go of the folder before the next one takes it.
        *writer = None;
        let indexed = last_commit(&self.index)?.map_err(|error| TantivyError::InvalidArgument(error.to_string()))?;
        *writer = Some(new_writer(&self.index)?);
        self.reader.reload()?;
        self.committed.send_replace(indexed.clone());
        Ok(indexed)
    }

    fn writing(&self) -> MutexGuard<'_, Option<IndexWriter>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes every file anew that still has words of what was replaced or deleted. Blocks for as long as that takes.
    ///
    /// # Errors
    ///
    /// [`SearchError`] if the disk fails.
    pub fn forget_deleted(&self) -> Result<(), SearchError> {
        self.merge_deleted().inspect_err(|_| self.failed.notify_one())
    }

    fn merge_deleted(&self) -> Result<(), SearchError> {
        let mut writer = self.writing();
        let writer = opened(&mut writer)?;
        let segments = self.index.searchable_segment_metas()?;
        for segment in segments.iter().filter(|segment| segment.has_deletes()) {
            writer.merge(&[segment.id()]).wait()?;
        }
        self.reader.reload()?;
        writer.garbage_collect_files().wait()?;
        Ok(())
    }

    /// Takes in the present state of some records. Found only after [`Self::commit`].
    ///
    /// # Errors
    ///
    /// [`SearchError`] if the disk fails.
    pub fn update(&self, records: &[Record]) -> Result<(), SearchError> {
        let mut writer = self.writing();
        let writer = opened(&mut writer)?;
        for record in records {
            let (kind, id) = (record.key.kind, record.key.id);
            if is_searched(kind) {
                self.replace(writer, (kind, id), Some(record))?;
            }
        }
        Ok(())
    }

    /// Takes out records that left this node without being deleted, durably. `present` looks one up: it may be there in
    /// another collection, or have come back.
    ///
    /// # Errors
    ///
    /// [`SearchError`] if the disk fails.
    pub fn forget(
        &self,
        left: &[(Kind, RecordId)],
        present: impl Fn(Kind, RecordId) -> Option<Record>,
    ) -> Result<(), SearchError> {
        self.take_out(left, present).inspect_err(|_| self.failed.notify_one())
    }

    fn take_out(
        &self,
        left: &[(Kind, RecordId)],
        present: impl Fn(Kind, RecordId) -> Option<Record>,
    ) -> Result<(), SearchError> {
        // Looked up while nothing can be taken in: what comes back meanwhile is taken in afterwards. Nor is there a new
        // writer before the commit.
        let mut writer = self.writing();
        let writer = opened(&mut writer)?;
        for &(kind, id) in left {
            self.replace(writer, (kind, id), present(kind, id).as_ref())?;
        }
        let committed = self.committed.borrow().clone();
        self.commit_with(writer, &committed)
    }

    fn replace(
        &self,
        writer: &IndexWriter,
        (kind, id): (Kind, RecordId),
        record: Option<&Record>,
    ) -> Result<(), SearchError> {
        writer.delete_term(Term::from_field_text(self.fields.key, &key(kind, id)));
        if let Some(record) = record
            && let Some(text) = Text::of(record)
        {
            let mut document = TantivyDocument::new();
            document.add_text(self.fields.key, key(kind, id));
            document.add_u64(self.fields.kind, kind.0.into());
            document.add_text(self.fields.bucket, record.key.bucket.to_string());
            document.add_text(self.fields.id, id.to_string());
            document.add_text(self.fields.name, text.name);
            document.add_text(self.fields.description, text.description);
            document.add_text(self.fields.languages, text.languages);
            writer.add_document(document)?;
        }
        Ok(())
    }

    /// Makes what was taken in durable and findable, together with how far it goes.
    ///
    /// # Errors
    ///
    /// [`SearchError`] if the disk fails.
    pub fn commit(&self, indexed: &Indexed) -> Result<(), SearchError> {
        self.commit_with(opened(&mut self.writing())?, indexed)
    }

    fn commit_with(&self, writer: &mut IndexWriter, indexed: &Indexed) -> Result<(), SearchError> {
        let mut prepared = writer.prepare_commit()?;
        let payload =
            serde_json::to_string(indexed).map_err(|error| TantivyError::InvalidArgument(error.to_string()))?;
        prepared.set_payload(&payload);
        prepared.commit()?;
        self.reader.reload()?;
        self.committed.send_replace(indexed.clone());
        Ok(())
    }

    /// The records of `kind` in which every word of `text` occurs, the last one perhaps only begun; of one bucket if it is
    /// given, and only those of `among` if that is. The newest first, at most [`MATCHES_MAX`].
    ///
    /// # Errors
    ///
    /// [`SearchError`] if the index is damaged.
    pub fn find(
        &self,
        kind: Kind,
        text: &str,
        bucket: Option<BucketId>,
        among: Option<&HashSet<RecordId>>,
    ) -> Result<Vec<RecordId>, SearchError> {
        let Some(query) = self.query(kind, text, bucket) else { return Ok(Vec::new()) };
        let searcher = self.reader.searcher();
        let mut found: BTreeMap<SegmentOrdinal, Vec<DocId>> = BTreeMap::new();
        for address in searcher.search(&query, &DocSetCollector)? {
            found.entry(address.segment_ord).or_default().push(address.doc_id);
        }
        let mut ids: Vec<RecordId> = Vec::new();
        for (segment, documents) in found {
            let Some(column) = searcher.segment_reader(segment).fast_fields().str("id")? else { continue };
            let mut places: Vec<u64> = Vec::with_capacity(documents.len());
            for document in documents {
                places.extend(column.term_ords(document));
            }
            places.sort_unstable();
            if among.is_none() {
                // Names of ids stand in their order: these are the newest of the segment.
                places.drain(..places.len().saturating_sub(MATCHES_MAX));
            }
            let read = |id: &[u8]| {
                let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
                ids.extend(id.filter(|id| among.is_none_or(|among| among.contains(id))));
            };
            column.dictionary().sorted_ords_to_term_cb(&places, read).map_err(TantivyError::from)?;
        }
        // Ids are ordered by the time of creation. The same question must find the same, or pages would skip.
        ids.sort_unstable_by_key(|id| Reverse(*id));
        ids.truncate(MATCHES_MAX);
        Ok(ids)
    }

    fn query(&self, kind: Kind, text: &str, bucket: Option<BucketId>) -> Option<BooleanQuery> {
        let (mut words, mut last_is_begun) = words(text);
        last_is_begun &= words.len() <= QUERY_WORDS_MAX;
        words.truncate(QUERY_WORDS_MAX);
        let last = words.len().checked_sub(1)?;
        let mut analyzer = self.index.tokenizers().get(ANALYZER)?;
        let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        let kind = Term::from_field_u64(self.fields.kind, kind.0.into());
        let bucket = bucket.map(|bucket| Term::from_field_text(self.fields.bucket, &bucket.to_string()));
        for term in bucket.into_iter().chain([kind]) {
            clauses.push((Occur::Must, Box::new(TermQuery::new(term, IndexRecordOption::Basic))));
        }
        for (at, word) in words.iter().enumerate() {
            let terms = sought(&mut analyzer, word);
            // One character of a run is indexed as the beginning of two.
            let is_begun = at == last && last_is_begun || word.is_run;
            let fields = [self.fields.name, self.fields.description, self.fields.languages];
            let anywhere = fields.map(|field| {
                let terms = terms.iter().map(|term| Term::from_field_text(field, term)).collect();
                (Occur::Should, occurs(terms, is_begun))
            });
            clauses.push((Occur::Must, Box::new(BooleanQuery::new(anywhere.into()))));
        }
        Some(BooleanQuery::new(clauses))
    }
}

/// The terms that must follow one another where `word` occurs.
fn sought(analyzer: &mut TextAnalyzer, word: &Word) -> Vec<String> {
    let mut terms = Vec::new();
    let mut stream = analyzer.token_stream(&word.text);
    while terms.len() <= QUERY_RUN_TERMS_MAX && stream.advance() {
        terms.push(stream.token().text.clone());
    }
    if terms.len() > 1 {
        // The last character alone is indexed only where a run ends, and is in the term before.
        terms.pop();
    }
    terms
}

fn occurs(mut terms: Vec<Term>, is_begun: bool) -> Box<dyn Query> {
    match terms.pop() {
        Some(last) if !terms.is_empty() => {
            terms.push(last);
            Box::new(PhraseQuery::new(terms))
        }
        Some(only) if is_begun => Box::new(FuzzyTermQuery::new_prefix(only, 0, true)),
        Some(only) => Box::new(TermQuery::new(only, IndexRecordOption::Basic)),
        None => Box::new(EmptyQuery),
    }
}

fn new_writer(index: &Index) -> Result<IndexWriter, SearchError> {
    Ok(index.writer_with_num_threads(1, WRITER_BYTES)?)
}

fn opened(writer: &mut Option<IndexWriter>) -> Result<&mut IndexWriter, SearchError> {
    let closed = || TantivyError::SystemError("it is closed for writing since a failure".into());
    Ok(writer.as_mut().ok_or_else(closed)?)
}

/// How far the last commit on the disk goes, if it tells.
fn last_commit(index: &Index) -> Result<Result<Indexed, serde_json::Error>, SearchError> {
    Ok(serde_json::from_str(&index.load_metas()?.payload.unwrap_or_default()))
}

/// Whether records of this kind can be found.
fn is_searched(kind: Kind) -> bool {
    [Author::KIND, Media::KIND, Category::KIND, Collection::KIND].contains(&kind)
}

fn key(kind: Kind, id: RecordId) -> String {
    format!("{}/{id}", kind.0)
}

/// What of a record can be found.
struct Text {
    name: String,
    description: String,
    languages: String,
}

impl Text {
    /// `None` for what was deleted for good.
    fn of(record: &Record) -> Option<Self> {
        if let Some(media) = Media::from_record(record) {
            let languages = media.languages.join(" ");
            return Some(Self { name: media.title, description: media.description, languages });
        }
        let (name, description) = if let Some(author) = Author::from_record(record) {
            (format!("{} {}", author.name, author.sort_name.unwrap_or_default()), author.description)
        } else if let Some(category) = Category::from_record(record) {
            (category.name, category.description)
        } else {
            let collection = Collection::from_record(record)?;
            (collection.title, collection.description)
        };
        Some(Self { name, description, languages: String::new() })
    }
}

fn schema() -> (Schema, Fields) {
    let words = || {
        // A run without spaces is looked for as a phrase, which needs positions.
        let option = IndexRecordOption::WithFreqsAndPositions;
        let indexing = TextFieldIndexing::default().set_tokenizer(ANALYZER).set_index_option(option);
        TextOptions::default().set_indexing_options(indexing)
    };
    let mut schema = Schema::builder();
    let fields = Fields {
        key: schema.add_text_field("key", STRING),
        kind: schema.add_u64_field("kind", INDEXED),
        bucket: schema.add_text_field("bucket", STRING),
        id: schema.add_text_field("id", TextOptions::from(FAST)),
        name: schema.add_text_field("name", words()),
        description: schema.add_text_field("description", words()),
        languages: schema.add_text_field("languages", words()),
    };
    (schema.build(), fields)
}

fn analyzer() -> TextAnalyzer {
    TextAnalyzer::builder(Words).filter(AsciiFoldingFilter).build()
}

#[cfg(test)]
mod tests {
    use alexandria_sync::hlc::Stamp;

    use super::*;

    fn media(number: u8, title: &str, language: &str) -> Record {
        let media = Media { title: title.into(), languages: vec![language.into()], ..Media::default() };
        media.to_record(BucketId::Catalogue, RecordId::from_bytes([number; 16]), Stamp::default())
    }

    fn ids(numbers: &[u8]) -> Vec<RecordId> {
        numbers.iter().map(|number| RecordId::from_bytes([*number; 16])).collect()
    }

    fn find(search: &Search, text: &str) -> Vec<RecordId> {
        let mut found = search.find(Media::KIND, text, None, None).unwrap();
        found.sort_unstable();
        found
    }

    #[test]
    fn every_word_must_occur_and_the_last_may_be_only_begun() {
        let dir = tempfile::tempdir().unwrap();
        let (search, indexed) = Search::open(dir.path(), Epoch(1)).unwrap();
        search.update(&[media(1, "Le Comté de Monte-Cristo", "fr"), media(2, "Monte Carlo", "en")]).unwrap();
        search.commit(&indexed).unwrap();
        assert_eq!(find(&search, "monte"), ids(&[1, 2]));
        assert_eq!(find(&search, "MONTE comte"), ids(&[1]));
        assert_eq!(find(&search, "monte car"), ids(&[2]));
        assert_eq!(find(&search, "car monte"), ids(&[]));
        assert_eq!(find(&search, "monte fr"), ids(&[1]));
        assert_eq!(search.find(Author::KIND, "monte", None, None).unwrap(), ids(&[]));
        assert_eq!(find(&search, "  ?! "), ids(&[]));
    }

    #[test]
    fn any_part_of_a_run_without_spaces_is_found_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (search, indexed) = Search::open(dir.path(), Epoch(1)).unwrap();
        let long = "汉".repeat(100) + "字典";
        let titles = ["红楼梦研究", "研究所红楼", "ภาษาไทยสำหรับผู้เริ่มต้น", "Python入门教程", &long, "コンピュータの歴史"];
        let all: Vec<Record> = (1..).zip(titles).map(|(number, title)| media(number, title, "zh")).collect();
        search.update(&all).unwrap();
        search.commit(&indexed).unwrap();
        for (text, numbers) in [
            ("红楼", &[1, 2][..]),
            ("研究", &[1, 2]),
            ("红楼梦研究", &[1]),
            ("楼梦", &[1]),
            ("研究 红楼", &[1, 2]),
            ("究红", &[]),
            ("红研", &[]),
            ("究", &[1, 2]),
            ("究 zh", &[1, 2]),
            ("楼", &[1, 2]),
            ("ไทย", &[3]),
            ("ผู้เริ่มต้น", &[3]),
            ("ผู้เริ่มตน", &[]),
            ("python入门", &[4]),
            ("入门 pyth", &[4]),
            ("字典", &[5]),
            ("歴史", &[6]),
            ("ｺﾝﾋﾟｭｰﾀ", &[6]),
        ] {
            assert_eq!(find(&search, text), ids(numbers), "{text}");
        }
    }

    #[test]
    fn a_title_is_found_however_its_letters_are_encoded() {
        let dir = tempfile::tempdir().unwrap();
        let (search, indexed) = Search::open(dir.path(), Epoch(1)).unwrap();
        let decomposed = "E\u{301}ducation civique e\u{301}te\u{301}.txt";
        search.update(&[media(1, decomposed, "fr"), media(2, &("ж".repeat(90) + " и"), "ru")]).unwrap();
        search.commit(&indexed).unwrap();
        for text in ["Éducation civique", "civique ete", "civique été", "civique e\u{301}", "EDUCATION", "éduc"] {
            assert_eq!(find(&search, text), ids(&[1]), "{text}");
        }
        assert_eq!(find(&search, &("Ж".repeat(90) + " и")), ids(&[2]), "a long word is cut in both");
    }

    #[test]
    fn of_more_than_a_query_may_find_the_newest_are_found_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let (search, indexed) = Search::open(dir.path(), Epoch(1)).unwrap();
        let id = |number: usize| RecordId::mint(number as u64, [0; 10]);
        let elsewhere = BucketId::Collection(id(0));
        for number in 0..MATCHES_MAX + 50 {
            let bucket = if number < 3 { elsewhere } else { BucketId::Catalogue };
            let media = Media { title: "Same".into(), ..Media::default() };
            search.update(&[media.to_record(bucket, id(number), Stamp::default())]).unwrap();
            if number == MATCHES_MAX / 2 {
                search.commit(&indexed).unwrap();
            }
        }
        search.commit(&indexed).unwrap();
        let newest: Vec<RecordId> = (50..MATCHES_MAX + 50).rev().map(id).collect();
        for _ in 0..3 {
            assert!(search.find(Media::KIND, "same", None, None).unwrap() == newest);
        }
        let old = search.find(Media::KIND, "same", None, Some(&HashSet::from([id(7)]))).unwrap();
        assert_eq!(old, [id(7)], "what is not looked for takes nobody's place");
        assert_eq!(search.find(Media::KIND, "same", Some(elsewhere), None).unwrap(), [id(2), id(1), id(0)]);
    }

    #[test]
    fn a_later_version_replaces_the_earlier_and_a_deleted_record_is_not_found() {
        let dir = tempfile::tempdir().unwrap();
        let (search, indexed) = Search::open(dir.path(), Epoch(1)).unwrap();
        search.update(&[media(1, "Old name", "en"), media(2, "Other", "en")]).unwrap();
        search.commit(&indexed).unwrap();
        search.update(&[media(1, "New name", "en"), media(2, "Other", "en").deleted(Stamp::default())]).unwrap();
        search.commit(&indexed).unwrap();
        assert_eq!(find(&search, "old"), ids(&[]));
        assert_eq!(find(&search, "new"), ids(&[1]));
        assert_eq!(find(&search, "other"), ids(&[]));
    }

    /// Invariant 7: what is deleted is not only not found, its words are gone from the files.
    #[test]
    fn what_was_deleted_is_forgotten_by_the_files_and_the_rest_is_still_found() {
        let dir = tempfile::tempdir().unwrap();
        let (search, indexed) = Search::open(dir.path(), Epoch(1)).unwrap();
        search.update(&[media(1, "Zanzibarine", "en"), media(2, "Other", "en")]).unwrap();
        search.commit(&indexed).unwrap();
        search.update(&[media(3, "Quetzalcoatlus", "en")]).unwrap();
        search.commit(&indexed).unwrap();
        let gone = [media(1, "", "en").deleted(Stamp::default()), media(3, "", "en").deleted(Stamp::default())];
        search.update(&gone).unwrap();
        search.commit(&indexed).unwrap();
        search.forget_deleted().unwrap();
        for file in std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()) {
            let bytes = std::fs::read(&file).unwrap();
            for word in ["zanzibarine", "quetzalcoatlus"] {
                let found = bytes.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()));
                assert!(!found, "{word} is in {}", file.display());
            }
        }
        assert_eq!(find(&search, "other"), ids(&[2]));
        drop(search);
        let (search, again) = Search::open(dir.path(), Epoch(1)).unwrap();
        assert_eq!((again, find(&search, "other")), (indexed, ids(&[2])), "how far it goes is kept");
    }

    #[test]
    fn an_index_that_is_whole_goes_on_and_one_that_is_damaged_or_foreign_starts_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut indexed = Indexed::nothing(Epoch(1));
        {
            let (search, _) = Search::open(dir.path(), Epoch(1)).unwrap();
            search.update(&[media(1, "Kept", "en")]).unwrap();
            indexed.set_row(BucketId::Catalogue, Seq(7));
            search.commit(&indexed).unwrap();
        }
        {
            let (search, found) = Search::open(dir.path(), Epoch(1)).unwrap();
            assert_eq!((found, find(&search, "kept")), (indexed, ids(&[1])));
        }
        let (search, found) = Search::open(dir.path(), Epoch(2)).unwrap();
        assert_eq!((found, find(&search, "kept")), (Indexed::nothing(Epoch(2)), ids(&[])));
        drop(search);
        for file in std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_some_and(|extension| extension == "json") {
                std::fs::write(file, b"{ damaged").unwrap();
            }
        }
        let (_, found) = Search::open(dir.path(), Epoch(2)).unwrap();
        assert_eq!(found, Indexed::nothing(Epoch(2)));
    }
}
