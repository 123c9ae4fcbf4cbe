//! Calls: operators, functions of the table, functions of the query.

use super::{Binder, Binding, Env, Scope, lookup, plural};
use crate::kql::aggregates;
use crate::kql::functions::{self, Function, Gives, Prepared, Want};
use crate::kql::plan::{Node, Typed};
use crate::kql::run;
use crate::kql::syntax::{At, Definition, Expr};
use crate::kql::value::{Type, Value};
use crate::kql::{Fault, Stop};

impl Binder<'_> {
    pub(super) fn call(
        &mut self,
        at: At,
        name: &str,
        arguments: &[Expr],
        scope: &Scope,
        env: &Env,
    ) -> Result<Typed, Fault> {
        if let Some(Binding::Function(function, seen)) = lookup(env, name).cloned() {
            return self.call_defined(at, name, (&function, &seen), arguments, scope, env);
        }
        let mut bound = Vec::with_capacity(arguments.len());
        for argument in arguments {
            bound.push(self.scalar(argument, scope, env)?);
        }
        if matches!(name, "and" | "or") {
            return self.logic(at, name, bound);
        }
        if let (Some(ty), [value]) = (Type::named(name), bound.as_slice()) {
            return self.literal(at, name, ty, value.clone());
        }
        self.call_builtin(at, name, bound)
    }

    /// `int(5)`, `string("a")`: a literal with its type.
    fn literal(&mut self, at: At, name: &str, ty: Type, value: Typed) -> Result<Typed, Fault> {
        match value.as_constant() {
            Some(constant) => Ok(Typed::constant(functions::convert_constant(constant, ty, &self.shared), ty)),
            None => Err(self.fault(at, format!("{name}() takes a literal; to{}() converts a value", ty.name()))),
        }
    }

    fn logic(&mut self, at: At, name: &str, bound: Vec<Typed>) -> Result<Typed, Fault> {
        if let Some(wrong) = bound.iter().find(|part| part.ty != Type::Bool) {
            return Err(self.fault(at, format!("{name} joins bools, not a {}", wrong.ty.name())));
        }
        let Ok(both) = <[Typed; 2]>::try_from(bound) else {
            return Err(self.fault(at, format!("{name} stands between two bools")));
        };
        let height = both.iter().map(|part| part.height).max().unwrap_or(0) + 1;
        self.check_height(at, height)?;
        let both = Box::new(both);
        let node = if name == "and" { Node::And(both) } else { Node::Or(both) };
        Ok(Typed { ty: Type::Bool, node, height })
    }

    fn call_defined(
        &mut self,
        at: At,
        name: &str,
        (function, seen): (&crate::kql::syntax::Function, &Env),
        arguments: &[Expr],
        scope: &Scope,
        env: &Env,
    ) -> Result<Typed, Fault> {
        let mut bindings = Vec::new();
        for argument in arguments {
            bindings.push(match self.as_table(argument, env) {
                Some(pipe) => self.table_binding(&pipe, env)?,
                None => self.scalar_binding(argument, scope, env)?,
            });
        }
        let inside = self.enter(at, name, (function, seen), bindings)?;
        match function.body.as_ref() {
            Definition::Scalar(body) => self.scalar(body, &Scope::default(), &inside),
            _ => Err(self.fault(at, format!("{name}() gives a table, not a value; toscalar() makes one of it"))),
        }
    }

    /// A function or an operator of the table, with what it takes checked.
    pub(super) fn call_builtin(&mut self, at: At, name: &str, arguments: Vec<Typed>) -> Result<Typed, Fault> {
        let Some(function) = functions::find(name) else {
            if aggregates::find(name).is_some() {
                return Err(self.fault(at, format!("{name}() is an aggregate; it has its place in summarize")));
            }
            return Err(self.fault(at, functions::refusal(name)));
        };
        self.check_arguments(at, function, &arguments)?;
        let types: Vec<Type> = arguments.iter().map(|argument| argument.ty).collect();
        let ty = match function.gives {
            Gives::Just(ty) => ty,
            Gives::First => types.first().copied().unwrap_or(Type::Dynamic),
            Gives::By(rule) => rule(&types).map_err(|message| self.fault(at, message))?,
            Gives::TypeOf(default) => match arguments.last().map(|last| &last.node) {
                Some(Node::TypeOf(ty)) => *ty,
                _ => default,
            },
        };
        let prepared = match function.prepare {
            Some(prepare) => {
                let constants: Vec<Option<&Value>> = arguments.iter().map(Typed::as_constant).collect();
                prepare(&constants).map_err(|message| self.fault(at, message))?
            }
            None => Prepared::Nothing,
        };
        self.folded(at, function, ty, arguments, prepared)
    }

    fn check_arguments(&self, at: At, function: &Function, arguments: &[Typed]) -> Result<(), Fault> {
        let (most, least) = (function.parameters.len(), function.parameters.len() - function.optional);
        let name = function.name;
        if arguments.len() < least || (arguments.len() > most && function.rest.is_none()) {
            let takes = match (least == most, function.rest.is_some()) {
                (_, true) => format!("at least {}", plural(least)),
                (true, _) => plural(most),
                (false, _) => format!("{least} to {}", plural(most)),
            };
            return Err(self.fault(at, format!("{name}() takes {takes}, not {}", arguments.len())));
        }
        for (index, argument) in arguments.iter().enumerate() {
            let Some(want) = function.want(index) else { continue };
            let is_typeof = matches!(argument.node, Node::TypeOf(_));
            let fits = if want == Want::TypeOf { is_typeof } else { !is_typeof && want.takes(argument.ty) };
            if !fits {
                let hint = hint(want, argument.ty);
                let kind = if is_typeof { "typeof(...)".to_owned() } else { format!("a {}", argument.ty.name()) };
                return Err(
                    self.fault(at, format!("{name} takes {} as argument {}, not {kind}{hint}", want.name(), index + 1))
                );
            }
        }
        Ok(())
    }

    /// A call of constants is a constant.
    fn folded(
        &mut self,
        at: At,
        function: &'static Function,
        ty: Type,
        arguments: Vec<Typed>,
        prepared: Prepared,
    ) -> Result<Typed, Fault> {
        let height = arguments.iter().map(|argument| argument.height).max().unwrap_or(0) + 1;
        self.check_height(at, height)?;
        let constant = |argument: &Typed| matches!(argument.node, Node::Const(_) | Node::TypeOf(_));
        let fold = arguments.iter().all(constant);
        let call = Typed { ty, node: Node::Call(function, arguments, prepared), height };
        if !fold {
            return Ok(call);
        }
        let value = run::constant(&call, &self.shared).map_err(|Stop(message)| self.fault(at, message))?;
        Ok(Typed::constant(value, ty))
    }
}

fn hint(want: Want, ty: Type) -> String {
    let to = match want {
        Want::Text => "tostring",
        Want::Number => "toreal",
        Want::Integer => "tolong",
        Want::DateTime => "todatetime",
        Want::TimeSpan => "totimespan",
        Want::Bool => "tobool",
        Want::Dynamic if ty == Type::String => "parse_json",
        _ => return String::new(),
    };
    format!("; {to}() converts it")
}
