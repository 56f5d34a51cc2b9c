//! A walk over all items of a controller, folder by folder and page by page, with one question under way at a time.
//!
//! Memory is bounded by the largest answer, whatever the controller holds: a folder's further pages wait until all that
//! is below the present one has been seen. It ends for every tree, a circular or bottomless one too.

use tokio::time::{Instant, timeout_at};

use super::answer::Answer;
use super::items::{self, Below, Extent, Found};
use super::{Fault, RemoteApi, RestError};
use crate::domain::build::Timestamp;
use crate::domain::job::JobPath;
use crate::domain::survey::{Gap, GapReason, Item, Kind, Survey};

/// So many items are asked for at once, as nearly as that can be told beforehand.
const AIM: usize = 1_000;
/// More are refused.
const MOST: usize = 20_000;
/// Levels that one question writes out: organisation, project, branch.
const LEVELS: usize = 3;
const FIRST_WIDTH: usize = 20;
const MAX_WIDTH: usize = 500;
/// No tree that people made is as deep.
const MAX_DEPTH: usize = 100;
/// Of all names on the way to an item. Servers refuse addresses of more than 8 KiB, and names may grow sixfold in one.
const MAX_NAME_BYTES: usize = 1_200;
/// A controller of more is no controller.
const MAX_ITEMS: u64 = 1_000_000;
/// Jenkins leaves out an item that it fails to write (`Property.BufferedDataWriter`, stapler): a list that lacks only so
/// many of what was asked for may go on.
const MAY_LACK: usize = 5;
/// How often a list that changes under our eyes is begun anew.
const RESTARTS: u8 = 2;

/// See [`RemoteApi::tour`].
#[derive(Debug)]
pub struct Tour<'a> {
    api: &'a RemoteApi,
    deadline: Instant,
    /// The next one last.
    to_visit: Vec<Visit>,
    width: usize,
    survey: Survey,
}

/// A folder to be asked for its items, from one of them on.
#[derive(Debug)]
struct Visit {
    folder: Place,
    from: usize,
    /// The name of the item before `from`. If it is another one by now, the list has shifted.
    before: Option<String>,
    levels: usize,
    restarts: u8,
}

/// Where an item is: all names on the way to it, as Jenkins keeps them. The top level has none.
#[derive(Clone, Debug, Default)]
struct Place(Vec<String>);

impl Visit {
    fn of(folder: Place) -> Self {
        Self { folder, from: 0, before: None, levels: LEVELS, restarts: 0 }
    }

    /// What is left of a folder whose items before `from` were asked for, the last `asked` of them just now.
    fn after(folder: &Place, from: usize, asked: usize, found: &[Found<'_>]) -> Option<Self> {
        let before = found.last().filter(|_| found.len() >= asked).and_then(Found::name).map(str::to_owned);
        let may_go_on = !found.is_empty() && found.len() + MAY_LACK >= asked;
        may_go_on.then(|| Self { from, before, ..Self::of(folder.clone()) })
    }

    /// One more in front, to see whether it is still the same.
    fn extent(&self, width: usize) -> Extent {
        let overlap = usize::from(self.before.is_some());
        Extent { from: self.from - overlap, width: width + overlap, levels: self.levels }
    }
}

impl Place {
    fn child(&self, name: &str) -> Self {
        Self(self.0.iter().map(String::as_str).chain([name]).map(str::to_owned).collect())
    }

    /// `None` at the top level.
    fn path(&self) -> Option<JobPath> {
        JobPath::from_segments(self.0.iter().map(String::as_str)).ok()
    }

    fn is_top(&self) -> bool {
        self.0.is_empty()
    }

    fn is_too_deep(&self) -> bool {
        self.0.len() > MAX_DEPTH || self.0.iter().map(String::len).sum::<usize>() > MAX_NAME_BYTES
    }

    /// Whether `full` is what Jenkins must call the item of that name in here.
    fn holds(&self, name: &str, full: &str) -> bool {
        self.0
            .iter()
            .try_fold(full, |rest, outer| rest.strip_prefix(outer.as_str())?.strip_prefix('/'))
            .is_some_and(|rest| rest == name)
    }
}

impl<'a> Tour<'a> {
    pub(super) fn new(api: &'a RemoteApi) -> Self {
        Self {
            api,
            deadline: Instant::now() + api.settings.tour_time,
            to_visit: vec![Visit::of(Place::default())],
            width: FIRST_WIDTH,
            survey: Survey::default(),
        }
    }

    /// Some more items, an outer one always before those within it. `None` when all have been seen.
    ///
    /// # Errors
    /// When the top level, or Jenkins as a whole, cannot be asked any longer. What is wrong with one folder alone becomes
    /// a gap of the [`Survey`].
    ///
    /// # Cancel safety
    /// A call that is dropped loses its page: the tour is then to be dropped as well.
    pub async fn next(&mut self) -> Result<Option<Vec<Item>>, RestError> {
        while let Some(visit) = self.to_visit.pop() {
            let extent = visit.extent(self.width);
            let items = match self.ask(&visit, extent).await {
                Ok(answer) => {
                    self.survey.clock = answer.date.or(self.survey.clock);
                    match items::items(&answer.body, extent.levels, MOST) {
                        Ok(found) => self.take(visit, extent, found),
                        Err(fault) => self.endure(visit, extent, answer.refuse(fault))?,
                    }
                }
                Err(error) => self.endure(visit, extent, error)?,
            };
            if self.survey.items > MAX_ITEMS {
                let at = self.api.settings.url.to_string();
                return Err(RestError {
                    at,
                    fault: Fault::TooMany { limit: usize::try_from(MAX_ITEMS).unwrap_or(MOST) },
                });
            }
            if !items.is_empty() {
                return Ok(Some(items));
            }
        }
        Ok(None)
    }

    /// The controller's own time when it answered last, to the second.
    pub fn clock(&self) -> Option<Timestamp> {
        self.survey.clock
    }

    /// What came of it, once [`Self::next`] has said that there is no more.
    pub fn end(mut self) -> Survey {
        if let Some(visit) = self.to_visit.pop() {
            self.gap(&visit.folder, GapReason::CutShort);
        }
        self.survey
    }

    async fn ask(&self, visit: &Visit, extent: Extent) -> Result<Answer, RestError> {
        let tree = extent.tree();
        let asking = self.api.ask(visit.folder.0.iter().map(String::as_str), &tree);
        timeout_at(self.deadline, asking).await.unwrap_or_else(|_| {
            let after = self.api.settings.tour_time;
            Err(RestError { at: self.api.settings.url.to_string(), fault: Fault::Endless { after } })
        })
    }

    /// Asks for less, or goes on without, or gives up.
    fn endure(&mut self, visit: Visit, extent: Extent, error: RestError) -> Result<Vec<Item>, RestError> {
        let is_top = visit.folder.is_top();
        match error.fault {
            fault if fault.is_of_size() && extent.width > 1 => {
                self.width = 1;
                self.to_visit.push(visit);
            }
            fault if fault.is_of_size() && extent.levels > 1 => self.to_visit.push(Visit { levels: 1, ..visit }),
            Fault::NotFound | Fault::Forbidden { .. } if !is_top => self.gap(&visit.folder, GapReason::Refused),
            Fault::Syntax { .. }
            | Fault::Foreign { .. }
            | Fault::Status { status: 500, .. }
            | Fault::TooLarge { .. }
            | Fault::TooMany { .. }
                if !is_top =>
            {
                self.gap(&visit.folder, GapReason::Unreadable);
            }
            _ => return Err(error),
        }
        Ok(Vec::new())
    }

    fn take(&mut self, visit: Visit, extent: Extent, mut found: Vec<Found<'_>>) -> Vec<Item> {
        let mut visit = visit;
        let next = Visit::after(&visit.folder, extent.from + extent.width, extent.width, &found);
        if let Some(before) = visit.before.take() {
            let is_in_place = found.first().and_then(Found::name) == Some(before.as_str());
            if is_in_place {
                found.remove(0);
            } else if visit.restarts < RESTARTS {
                self.to_visit.push(Visit { restarts: visit.restarts + 1, ..Visit::of(visit.folder) });
                return Vec::new();
            } else {
                self.gap(&visit.folder, GapReason::Restless);
            }
        }
        self.to_visit.extend(next.map(|next| Visit { levels: visit.levels, restarts: visit.restarts, ..next }));
        let mut items = Vec::new();
        let across = found.len();
        self.gather(&visit.folder, found, &mut items);
        if let Some(each) = items.len().checked_div(across) {
            self.width = (AIM / each.max(1)).clamp(1, MAX_WIDTH).min(self.width * 4);
        }
        items
    }

    fn gather(&mut self, folder: &Place, found: Vec<Found<'_>>, items: &mut Vec<Item>) {
        for found in found {
            let Some(name) = found.name().filter(|name| !matches!(*name, "" | "." | "..")) else {
                self.gap(folder, GapReason::Unreadable);
                continue;
            };
            if found.full_name().is_some_and(|full| !folder.holds(name, full)) {
                self.gap(folder, GapReason::Astray);
                continue;
            }
            let place = folder.child(name);
            let Some(path) = place.path() else { continue };
            let kind = found.kind();
            self.survey.items += 1;
            self.survey.jobs += u64::from(kind == Kind::Job);
            let last = found.last(&path);
            let hides_last = last.is_none() && found.has_last();
            items.push(Item { path, kind, disabled: found.is_disabled(), last, hides_last });
            match found.below {
                _ if kind == Kind::Job => {}
                Below::Nothing => {}
                Below::Unasked => self.visit_later(Visit::of(place)),
                Below::Listed(inner) => {
                    let rest = Visit::after(&place, Extent::INNER, Extent::INNER, &inner);
                    if let Some(rest) = rest {
                        self.visit_later(rest);
                    }
                    self.gather(&place, inner, items);
                }
            }
        }
    }

    fn visit_later(&mut self, visit: Visit) {
        if visit.folder.is_too_deep() {
            self.gap(&visit.folder, GapReason::TooDeep);
        } else {
            self.to_visit.push(visit);
        }
    }

    fn gap(&mut self, folder: &Place, because: GapReason) {
        let gap = Gap { folder: folder.path(), because };
        if self.survey.gaps.len() < Survey::MAX_GAPS && !self.survey.gaps.contains(&gap) {
            self.survey.gaps.push(gap);
        }
    }
}
