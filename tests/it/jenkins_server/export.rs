//! The remote access API: which bean an address means, and the properties of it that a selector wants, as stapler writes
//! them (`org.kohsuke.stapler.export`).

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::documents::url;
use super::model::{Build, Class, Item, Jenkins, Waiting};
use super::selector::Selector;
use super::{page, user};

/// Something that the API can show.
#[derive(Clone)]
enum Bean<'a> {
    Root,
    Item(String, &'a Item),
    Run(String, &'a Item, &'a Build),
    Queue,
    Waiting(Waiting),
    Computers,
    /// The built-in node has no name.
    Computer(&'a str, bool),
    /// What it runs.
    Executor(Option<(String, &'a Item, &'a Build)>),
    WhoAmI,
}

enum Property<'a> {
    Plain(Value),
    Bean(Option<Bean<'a>>),
    List(Vec<Bean<'a>>),
}

impl Jenkins {
    /// The body of an answer, or a refusal with its page.
    pub(super) fn answer(&self, headers: &HeaderMap, below: &str, query: &str) -> Result<Vec<u8>, Response> {
        let user = user(headers, &self.users)?;
        let segments: Vec<String> =
            below.split('/').map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned()).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let Some(place) = segments.strip_suffix(&["api", "json"]) else { return Err(page(StatusCode::NOT_FOUND)) };
        let tree = query.split('&').find_map(|pair| pair.strip_prefix("tree="));
        let tree = tree.map(|tree| percent_decode_str(&tree.replace('+', " ")).decode_utf8_lossy().into_owned());
        // Jenkins would answer with all that it has; its administrators would complain.
        let Some(tree) = tree else { return Err(page(StatusCode::FORBIDDEN)) };
        let Some(selector) = Selector::parse(&tree) else { return Err(page(StatusCode::INTERNAL_SERVER_ERROR)) };
        let view = View { jenkins: self, user: user.as_deref() };
        if place != ["whoAmI"] && !view.may_read() {
            let mut response = page(StatusCode::FORBIDDEN);
            let headers = response.headers_mut();
            let name = view.user.unwrap_or("anonymous");
            headers.insert("x-you-are-authenticated-as", name.parse().unwrap());
            headers.insert("x-required-permission", "hudson.model.Hudson.Read".parse().unwrap());
            return Err(response);
        }
        let bean = view.bean(place).ok_or_else(|| page(StatusCode::NOT_FOUND))?;
        Ok(view.write(&bean, &selector).to_string().into_bytes())
    }
}

struct View<'a> {
    jenkins: &'a Jenkins,
    user: Option<&'a str>,
}

impl<'a> View<'a> {
    fn may_read(&self) -> bool {
        match self.user {
            Some(user) => !self.jenkins.locked_out.contains(user),
            None => self.jenkins.anonymous_may_read,
        }
    }

    fn bean(&self, place: &[&str]) -> Option<Bean<'a>> {
        match place {
            [] => Some(Bean::Root),
            ["queue"] => Some(Bean::Queue),
            ["computer"] => Some(Bean::Computers),
            ["whoAmI"] => Some(Bean::WhoAmI),
            place => {
                let pairs = place.chunks(2).map(|pair| match pair {
                    ["job", name] => Some(*name),
                    _ => None,
                });
                let full = pairs.collect::<Option<Vec<_>>>()?.join("/");
                let item = self.jenkins.find(&full).filter(|_| self.shows(&full))?;
                Some(Bean::Item(full, item))
            }
        }
    }

    /// An item is hidden with all that is in it.
    fn shows(&self, full: &str) -> bool {
        let hidden = &self.jenkins.hidden;
        !hidden.iter().any(|hidden| {
            full.strip_prefix(hidden.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    fn items<'n>(&self, outer: &str, items: impl Iterator<Item = (&'n str, &'a Item)>) -> Property<'a> {
        let full = |name: &str| if outer.is_empty() { name.to_owned() } else { format!("{outer}/{name}") };
        let shown = items.map(|(name, item)| (full(name), item)).filter(|(full, _)| self.shows(full));
        Property::List(shown.map(|(full, item)| Bean::Item(full, item)).collect())
    }

    /// The properties of a bean; the costly ones only where they are wanted.
    fn properties(&self, bean: &Bean<'a>, selector: &Selector) -> Vec<(&'static str, Property<'a>)> {
        use Property::{Bean as One, List, Plain};
        let root = &self.jenkins.root_url;
        match bean {
            Bean::Root => {
                let items = self.jenkins.items.iter().map(|(name, item)| (name.as_str(), item));
                vec![("jobs", self.items("", items)), ("url", Plain(root.as_str().into()))]
            }
            Bean::Item(full, item) => self.item(full, item, selector),
            Bean::Run(full, item, build) => {
                let mut properties = vec![
                    ("building", Plain(build.result.is_none().into())),
                    ("duration", Plain(build.duration.into())),
                    ("number", Plain(build.number.into())),
                    ("queueId", Plain(build.queue_id.into())),
                    ("result", Plain(build.result.into())),
                    ("timestamp", Plain(build.created.into())),
                    ("url", Plain(format!("{root}{}{}/", url(full), build.number).into())),
                ];
                // Only builds of an `AbstractProject` run on one node.
                if matches!(item.class, Class::FreeStyle | Class::Matrix) {
                    properties.insert(1, ("builtOn", Plain(build.node.into())));
                }
                properties
            }
            Bean::Queue => vec![("items", List(self.jenkins.queue.iter().map(|item| Bean::Waiting(*item)).collect()))],
            Bean::Waiting(waiting) => {
                let is = |of: &[Waiting]| Plain(of.contains(waiting).into());
                let mut properties = vec![
                    ("blocked", is(&[Waiting::Blocked])),
                    ("buildable", is(&[Waiting::Buildable, Waiting::Stuck, Waiting::Pending])),
                    ("stuck", is(&[Waiting::Stuck])),
                ];
                if matches!(waiting, Waiting::Buildable | Waiting::Stuck | Waiting::Pending) {
                    properties.insert(2, ("pending", is(&[Waiting::Pending])));
                }
                properties
            }
            Bean::Computers => {
                let agents = self.jenkins.agents.iter().map(|(name, online)| Bean::Computer(name, *online));
                vec![("computer", List(std::iter::once(Bean::Computer("", true)).chain(agents).collect()))]
            }
            Bean::Computer(name, online) => {
                let running = |of: fn(Class) -> bool| {
                    let jobs = self.jenkins.jobs().into_iter();
                    let found = jobs.filter_map(move |full| {
                        let item = self.jenkins.find(&full).filter(|item| of(item.class))?;
                        let build = item.builds.iter().find(|build| build.result.is_none())?;
                        Some((full, item, build))
                    });
                    found.collect::<Vec<_>>()
                };
                let (executors, one_off) = match *name {
                    // A Pipeline itself runs beside the executors of the built-in node.
                    "" => (Vec::new(), running(|class| class == Class::Pipeline)),
                    "linux-1" => (running(Class::is_job), Vec::new()),
                    _ => (Vec::new(), Vec::new()),
                };
                let count = if name.is_empty() { 0 } else { self.jenkins.executors };
                let executors = executors.into_iter().map(Some).chain(std::iter::repeat(None)).take(count);
                vec![
                    ("displayName", Plain((*name).into())),
                    ("executors", List(executors.map(Bean::Executor).collect())),
                    ("offline", Plain((!online).into())),
                    ("oneOffExecutors", List(one_off.into_iter().map(|run| Bean::Executor(Some(run))).collect())),
                ]
            }
            Bean::Executor(run) => {
                let current = run.clone().map(|(full, item, build)| Bean::Run(full, item, build));
                vec![("currentExecutable", One(current)), ("idle", Plain(run.is_none().into()))]
            }
            Bean::WhoAmI => vec![
                ("anonymous", Plain(self.user.is_none().into())),
                ("authenticated", Plain(true.into())),
                ("name", Plain(self.user.unwrap_or("anonymous").into())),
            ],
        }
    }

    fn item(&self, full: &str, item: &'a Item, selector: &Selector) -> Vec<(&'static str, Property<'a>)> {
        use Property::{Bean as One, List, Plain};
        let name = full.rsplit('/').next().unwrap();
        let address = Plain(format!("{}{}", self.jenkins.root_url, url(full)).into());
        let mut properties = vec![("name", Plain(name.into())), ("url", address)];
        if !self.jenkins.is_old {
            properties.insert(0, ("fullName", Plain(full.into())));
        }
        if !item.class.is_job() {
            let jobs = if item.holds_itself {
                self.items(full, std::iter::once((name, item)).filter(|_| full.len() < 20_000))
            } else {
                self.items(full, item.items.iter().map(|(name, item)| (name.as_str(), item)))
            };
            properties.push(("jobs", jobs));
            return properties;
        }
        let run = |build: Option<&'a Build>| One(build.map(|build| Bean::Run(full.to_owned(), item, build)));
        let completed = || item.builds.iter().rev().filter(|build| build.result.is_some());
        let last = |result: &str| run(completed().find(|build| build.result == Some(result)));
        let is_buildable = !item.disabled && !item.is_dead && item.class != Class::External;
        let newest = item.builds.iter().rev().take(100).filter(|_| selector.child("builds").is_some());
        properties.extend([
            ("buildable", Plain(is_buildable.into())),
            ("builds", List(newest.map(|build| Bean::Run(full.to_owned(), item, build)).collect())),
            ("lastBuild", run(item.builds.last())),
            ("lastCompletedBuild", run(completed().next())),
            ("lastFailedBuild", last("FAILURE")),
            ("lastStableBuild", last("SUCCESS")),
            ("lastUnstableBuild", last("UNSTABLE")),
        ]);
        // An external job cannot be disabled.
        if item.class != Class::External {
            properties.push(("disabled", Plain(item.disabled.into())));
        }
        properties
    }

    fn write(&self, bean: &Bean<'a>, selector: &Selector) -> Value {
        let mut object = Map::new();
        if let Some(class) = class(bean) {
            object.insert("_class".to_owned(), class.into());
        }
        for (name, property) in self.properties(bean, selector) {
            let Some(wanted) = selector.child(name) else { continue };
            let value = match property {
                Property::Plain(value) => value,
                Property::Bean(bean) => bean.map_or(Value::Null, |bean| self.write(&bean, wanted)),
                Property::List(beans) => {
                    let (from, to) = wanted.range;
                    let within = beans.iter().take(to).skip(from);
                    // What fails to be written is left out of its list.
                    let sound = within
                        .filter(|bean| !matches!(bean, Bean::Item(full, _) if self.jenkins.broken.contains(full)));
                    sound.map(|bean| self.write(bean, wanted)).collect()
                }
            };
            object.insert(name.to_owned(), value);
        }
        Value::Object(object)
    }
}

/// Written wherever the class is not plain from the declaration.
fn class(bean: &Bean<'_>) -> Option<&'static str> {
    Some(match bean {
        Bean::Root => "hudson.model.Hudson",
        Bean::Item(_, item) => item.class.java_name(),
        Bean::Run(_, item, _) => item.class.run_name(),
        Bean::Queue => "hudson.model.Queue",
        Bean::Waiting(Waiting::Blocked) => "hudson.model.Queue$BlockedItem",
        Bean::Waiting(Waiting::Quiet) => "hudson.model.Queue$WaitingItem",
        Bean::Waiting(_) => "hudson.model.Queue$BuildableItem",
        Bean::Computers => "hudson.model.ComputerSet",
        Bean::Computer("", _) => "hudson.model.Hudson$MasterComputer",
        Bean::Computer(..) => "hudson.slaves.SlaveComputer",
        Bean::Executor(_) => return None,
        Bean::WhoAmI => "hudson.security.WhoAmI",
    })
}
