// Names that a module of src exports and nobody imports: neither src, nor a test, nor a script. What the package's
// entries export is for users, and a type that its own module mentions belongs to a signature there. Fails when there is one.
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative, resolve, dirname, sep } from 'node:path';
import ts from 'typescript';
import { root } from './prepare.js';

const ENTRIES = ['src/index.ts', 'src/engine/index.ts', 'src/testing/index.ts', 'src/cli/main.ts'];
const FOLDERS = ['src', 'test', 'scripts', 'bench', 'examples'];

function sources(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap(entry => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === 'node_modules' ? [] : sources(path);
    return /\.[cm]?[jt]s$/.test(entry.name) ? [path] : [];
  });
}

// The file in src that an import means; what imports the build means its source.
function target(from, specifier) {
  if (!specifier.startsWith('.')) return undefined;
  const path = relative(root, resolve(dirname(from), specifier))
    .split(sep)
    .join('/');
  return path.replace(/^dist\/(cjs|esm)\//, 'src/').replace(/\.js$/, '.ts');
}

const exported = new Map(); // 'src/x.ts' → Set of names
const used = new Set(); // 'src/x.ts name'
const mentionedTypes = new Set(); // 'src/x.ts name' of types that their own module mentions
const everything = new Set(); // modules that are used in a way that cannot be followed

function isExported(node) {
  return ts.canHaveModifiers(node) && ts.getModifiers(node)?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword);
}

function collectExports(file, path) {
  const names = new Set();
  for (const statement of file.statements) {
    if (isExported(statement)) {
      if (ts.isVariableStatement(statement))
        for (const { name } of statement.declarationList.declarations) names.add(name.getText(file));
      else if (statement.name !== undefined) names.add(statement.name.text);
    } else if (
      ts.isExportDeclaration(statement) &&
      statement.exportClause !== undefined &&
      ts.isNamedExports(statement.exportClause)
    )
      for (const { name } of statement.exportClause.elements) names.add(name.text);
  }
  exported.set(path, names);
  const visit = node => {
    if (ts.isTypeReferenceNode(node)) mentionedTypes.add(`${path} ${node.typeName.getText(file)}`);
    if (ts.isExpressionWithTypeArguments(node)) mentionedTypes.add(`${path} ${node.expression.getText(file)}`);
    ts.forEachChild(node, visit);
  };
  visit(file);
}

function collectUses(file, path) {
  const namespaces = new Map();
  const use = (module, name) => used.add(`${module} ${name}`);
  const visit = node => {
    if ((ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) && node.moduleSpecifier !== undefined) {
      const module = target(path, node.moduleSpecifier.text);
      const clause = ts.isImportDeclaration(node) ? node.importClause?.namedBindings : node.exportClause;
      if (module !== undefined) {
        if (clause !== undefined && ts.isNamespaceImport(clause)) namespaces.set(clause.name.text, module);
        else if (clause !== undefined && (ts.isNamedImports(clause) || ts.isNamedExports(clause)))
          for (const { name, propertyName } of clause.elements) use(module, (propertyName ?? name).text);
        else if (ts.isExportDeclaration(node)) namespaces.set(`export * ${module}`, module);
      }
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      const module = target(path, node.argument.literal.text);
      if (module !== undefined && node.qualifier !== undefined) use(module, node.qualifier.getText(file).split('.')[0]);
    } else if (ts.isCallExpression(node) && node.arguments.length > 0 && ts.isStringLiteralLike(node.arguments[0])) {
      // import(), require() and whatever else is handed the path of a module: all of it counts as used.
      const module = target(path, node.arguments[0].text);
      if (module !== undefined) everything.add(module);
    }
    const isMember = ts.isPropertyAccessExpression(node) || ts.isQualifiedName(node);
    if (isMember) {
      const [left, right] = ts.isQualifiedName(node) ? [node.left, node.right] : [node.expression, node.name];
      const module = namespaces.get(left.getText(file));
      if (module !== undefined) use(module, right.text);
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  for (const [name, module] of namespaces) {
    if (!name.startsWith('export * ')) continue;
    // What is passed on under this module's name is used where that one is.
    passedOn.push([relative(root, path).split(sep).join('/'), module]);
  }
}

const passedOn = [];
const paths = FOLDERS.flatMap(folder => sources(join(root, folder)));
for (const path of paths) {
  const file = ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.Latest, true);
  const name = relative(root, path).split(sep).join('/');
  if (name.startsWith('src/')) collectExports(file, name);
  collectUses(file, path);
}

function isUsed(module, name) {
  if (used.has(`${module} ${name}`) || everything.has(module)) return true;
  return passedOn.some(([through, from]) => from === module && (ENTRIES.includes(through) || isUsed(through, name)));
}

let count = 0;
for (const [module, names] of exported) {
  if (ENTRIES.includes(module)) continue;
  for (const name of names) {
    if (isUsed(module, name) || mentionedTypes.has(`${module} ${name}`)) continue;
    count++;
    console.log(`${module}: nobody imports ${name}`);
  }
}
console.log(count === 0 ? 'no unused exports' : `${count} unused exports`);
process.exitCode = count === 0 ? 0 : 1;
