//! What recovery needs of an index file: where the segment ends, and its state delta.

use std::{convert::Infallible, io, ops::Range, path::Path, sync::Arc};

use crate::{
    error::OpenError,
    index::{
        INDEX_HEADER_BYTES, INDEX_VERSION, IndexError, IndexHeader, ResidentIndex, SectionKind,
        StoredControl, TopicSummary,
        delta::{self, PRODUCERS_READ_BYTES},
        gone::{self, GoneTopic},
    },
    io::{Access, Disk, DiskFile},
    offset::{Offset, Position},
    once::{IdEntry, ProducerEntry},
    state::LogState,
    stored_producers::read_producers,
    topic::TopicNumber,
};

/// The checked parts of an index file.
pub(crate) struct StoredIndex<F> {
    file: Arc<F>,
    resident: ResidentIndex,
    topics: Vec<u8>,
    ids: Vec<IdEntry>,
    /// `None` of so many that they are read once more when they are asked for.
    producers: Option<Vec<ProducerEntry>>,
    controls: Vec<StoredControl>,
    gone: Vec<GoneTopic>,
}

impl<F: DiskFile> StoredIndex<F> {
    /// Reads an index. `None` if it is damaged: the segment is then scanned, and indexed anew.
    pub(crate) fn read<D: Disk<File = F>>(
        disk: &D,
        path: &Path,
    ) -> Result<Option<StoredIndex<F>>, OpenError> {
        let file = disk.open(path, Access::Read).map_err(OpenError::io("opening", path))?;
        StoredIndex::of_file(&Arc::new(file), path)
    }

    /// The same of one that is open.
    pub(crate) fn of_file(file: &Arc<F>, path: &Path) -> Result<Option<StoredIndex<F>>, OpenError> {
        match read_parts(file) {
            Ok(Ok(index)) => Ok(Some(index)),
            Ok(Err(IndexError::NewerVersion { version })) => Err(OpenError::NewerVersion {
                file: path.to_owned(),
                version,
                version_max: INDEX_VERSION,
            }),
            Ok(Err(_damage)) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(OpenError::io("reading", path)(error)),
        }
    }

    /// Which log file it belongs to, and how that ends.
    pub(crate) fn header(&self) -> &IndexHeader {
        self.resident.header()
    }

    /// Adds what the segment says beside topics. After an error the state is good for nothing.
    pub(crate) fn add_to(&self, state: &mut LogState) -> io::Result<()> {
        let known = self.producers.iter().flatten().copied();
        state.add(self.ids.iter(), known, &self.controls);
        if self.producers.is_some() {
            return Ok(());
        }
        match read_producers(&*self.file, self.header(), |entry| state.producers.put(entry))? {
            Ok(()) => Ok(()),
            // It was good when it was looked at first.
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    /// Whether a repair has found events of the segment to be lost.
    pub(crate) fn has_gaps(&self) -> bool {
        self.resident.gaps().len() > 0
    }

    /// Which those are, in order.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = Range<Offset>> {
        self.resident.gaps()
    }

    /// The topics whose last event in the segment is gone.
    pub(crate) fn gone(&self) -> &[GoneTopic] {
        &self.gone
    }

    /// The numbers of all topics that have events in the segment, or had some.
    pub(crate) fn topic_numbers(&self) -> Vec<TopicNumber> {
        let mut numbers: Vec<_> = self.gone.iter().map(|topic| topic.number).collect();
        let added = self.for_each_topic(|_, topic| {
            numbers.push(topic.number);
            Ok::<(), Infallible>(())
        });
        let Ok(()) = added;
        numbers
    }

    /// Hands over each topic that has events in the segment. All of them were checked before.
    pub(crate) fn for_each_topic<E>(
        &self,
        mut take: impl FnMut(&str, &TopicSummary) -> Result<(), E>,
    ) -> Result<(), E> {
        walk(&self.resident, &self.topics, |name, topic| take(name, topic))
            .expect("the topics were checked when they were read")
    }
}

fn read_parts<F: DiskFile>(file: &Arc<F>) -> io::Result<Result<StoredIndex<F>, IndexError>> {
    let read = |position: Position, bytes: u64| {
        // What a damaged length can make us allocate is bounded by the file.
        let size = file.size()?;
        if position.get().saturating_add(bytes) > size {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let mut content = vec![0; usize::try_from(bytes).expect("a file that fits in memory")];
        file.read_exact_at(&mut content, position)?;
        Ok(content)
    };
    let header = match IndexHeader::decode(&read(Position::default(), INDEX_HEADER_BYTES as u64)?) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error)),
    };
    if file.size()? != header.index_bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let resident = match ResidentIndex::decode(&read(Position::default(), header.resident_bytes)?) {
        Ok(resident) => resident,
        Err(error) => return Ok(Err(error)),
    };
    let (position, len) = resident.topic_blocks_place(&(0..resident.topic_block_count()));
    let topics = read(position, len as u64)?;
    let mut count = 0;
    let checked = walk(&resident, &topics, |_, _| {
        count += 1;
        Ok::<(), IndexError>(())
    });
    match checked {
        Ok(_) if count != header.topic_count => {
            return Ok(Err(IndexError::Content { what: "topic count" }));
        }
        Ok(_) => {}
        Err(error) => return Ok(Err(error)),
    }
    let section = |kind| {
        let section = header.section(kind);
        let content = read(section.position, section.bytes)?;
        Ok::<_, io::Error>(header.checked(kind, content))
    };
    let producers_bytes = header.section(SectionKind::PRODUCERS).bytes;
    let mut producers =
        (producers_bytes <= PRODUCERS_READ_BYTES as u64).then(Vec::<ProducerEntry>::new);
    let read_them = read_producers(&**file, &header, |entry| {
        producers.iter_mut().for_each(|known| known.push(entry));
    })?;
    let (ids, controls, gone) =
        (section(SectionKind::IDS)?, section(SectionKind::CONTROLS)?, section(SectionKind::GONE)?);
    let (base, end) = (header.base_offset, header.end_offset);
    let decoded = || {
        Ok(StoredIndex {
            file: Arc::clone(file),
            ids: delta::decode_ids(&ids?, base, end)?,
            producers: read_them.map(|()| producers)?,
            controls: delta::decode_controls(&controls?, base, end)?,
            gone: gone::decode_gone(&gone?, base, end)?,
            resident,
            topics,
        })
    };
    Ok(decoded())
}

/// The outer error is the index's, the inner one that of `take`.
fn walk<E>(
    resident: &ResidentIndex,
    topics: &[u8],
    mut take: impl FnMut(&str, &TopicSummary) -> Result<(), E>,
) -> Result<Result<(), E>, IndexError> {
    let mut blocks = resident.read_topics(topics, 0..resident.topic_block_count())?;
    while let Some(entry) = blocks.next_entry()? {
        if let Err(error) = take(entry.name, &entry.summary) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}
